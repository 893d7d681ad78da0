"""The documentation: its site builds strictly and asks no other host; links and anchors lead somewhere; reference pages are the code's."""

import re
import shutil
import subprocess
import sys
import threading
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from recipes import reference
from recipes.docs_site import as_python_markdown, outside_fences, slug
from tiny_audio.cli import dev
from tiny_audio.cli.main import run

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*PAGES, *sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "recipes").rglob("*.md"))]
WIDTHS = (1280, 390)  # pixels
SEEN = ("index.html", "reference/cli.html", "reference/settings.html", "reference/api.html", "projectors.html")
# the theme's script puts each table of a document into a box that scrolls
TABLES = "window.tables = () => document.querySelectorAll('article table:not([class])').length"

LINK = re.compile(
    r"\]\(<?([^)\s>]*)>?(?:\s+\"[^\"]*\")?\)|<(?:a|img)\s[^>]*(?:href|src)=\"([^\"]*)\"|^\[[^\]]+\]:\s+(\S+)"
)
HEADING = re.compile(r"#{1,6}\s+(.*?)(?:\s+#+)?")


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


# ---- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; a warning, as of a link that leads nowhere, fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def entries(nav: list) -> list[str]:
    values = [value for entry in nav for value in (entry.values() if isinstance(entry, dict) else [entry])]
    return [page for value in values for page in (entries(value) if isinstance(value, list) else [value])]


def test_every_page_is_in_the_navigation_once_and_each_of_its_pages_exists():
    config = re.sub(r"!!\S+", "", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = entries(yaml.safe_load(config)["nav"])
    assert sorted(pages) == [page.relative_to(DOCS).as_posix() for page in PAGES]


class Loaded(HTMLParser):
    """What a page loads by itself: scripts, styles, fonts, images; links that a reader may follow do not count."""

    def __init__(self, html: str):
        super().__init__()
        self.urls: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.urls.append(values.get("href") or "")
        self.urls += [values.get(name) or "" for name in ("src", "poster", "data") if name in values]


def foreign(urls: list[str]) -> list[str]:
    return [url for url in urls if urlsplit(url).netloc]


def test_no_page_loads_anything_of_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    found = {page.name: foreign(Loaded(page.read_text(encoding="utf-8")).urls) for page in pages}
    for style in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        found[style.name] = foreign(re.findall(r"url\(['\"]?([^)'\"]+)", style.read_text(encoding="utf-8")))
        found[style.name] += re.findall(
            r"@import[^;]*//[^;]*|<image[^>]*href=\"(?:https?:)?//[^\"]*", style.read_text()
        )
    assert {name: urls for name, urls in found.items() if urls} == {}


@pytest.fixture
def address(site):
    """Where the site is served meanwhile."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *told):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_pages_in_a_browser(address):
    """They ask no other host, also by script; nothing is missing; they fit a phone; the search finds an option."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    from playwright.sync_api import sync_playwright

    requests, missing, wide = [], [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.add_init_script(TABLES)
        page.on("requestfailed", lambda request: missing.append(request.url))
        page.on("response", lambda response: missing.extend([response.url] if response.status >= 400 else []))
        for file in SEEN:
            page.goto(address + file)
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_function("document.querySelectorAll('.md-typeset__scrollwrap').length == tables()")
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    wide.append((file, width))
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        page.click(".md-search__input")
        page.locator(".md-search__input").press_sequentially("label_smoothing")
        page.wait_for_selector(".md-search-result__item a[href*=settings]")
        browser.close()
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
    assert missing == [] and wide == []


def test_what_github_shows_is_what_the_site_shows():
    """Lists indented by their markers, without empty lines around; hidden solutions; comments."""
    import markdown

    given = """Steps:
1. One
   ```text
   ls  # as it is
     - no item
   ```
   - inner
     more
2. Two
<!-- slow -->
```text
- neither
```
Then
| a | b |
| - | - |
| 1 | 2 |

<details>
<summary>A `solution`</summary>

- hidden
</details>
"""
    extensions = ["tables", "md_in_html", "pymdownx.superfences", "attr_list"]
    html = markdown.markdown(as_python_markdown(given), extensions=extensions)
    assert html.count("<ol>") == 1 and html.count("<ul>") == 2 and html.count("<li>") == 4
    assert re.search(r"</ul>\s*</li>\s*<li>\s*<p>Two", html)
    assert "  - no item" in html and "slow" not in html and "- neither" in html
    assert re.search(r"inner\s+more", html) and html.count("<table>") == 1
    assert re.search(r"</ol>\s*<div.*neither.*</div>\s*<p>Then", html, re.DOTALL)
    assert "<li>hidden" in html and "<code>solution</code></summary>" in html


# ---- links


@cache
def anchors(path: Path) -> frozenset[str]:
    """GitHub's anchors of a document: of headings, a number added from the second on, and those written out."""
    found: dict[str, int] = {}
    written = set()
    for line in outside_fences(path.read_text(encoding="utf-8")):
        written |= set(re.findall(r"<a\s[^>]*(?:id|name)=\"([^\"]+)\"", line))
        if match := HEADING.fullmatch(line.strip()) if not line.startswith("    ") else None:
            heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", match[1])
            found[slug(heading)] = found.get(slug(heading), 0) + 1
    numbered = {f"{name}-{number}" for name, count in found.items() for number in range(1, count)}
    return frozenset(found) | numbered | written


def links(path: Path) -> list[str]:
    text = "\n".join(outside_fences(path.read_text(encoding="utf-8")))
    without_code = re.sub(r"(`+)[^`].*?\1", "", text)
    return [next(filter(None, found), "") for line in without_code.splitlines() for found in LINK.findall(line)]


def broken(path: Path, link: str) -> str | None:
    """What is wrong with a link of a document."""
    parts = urlsplit(link)
    if parts.scheme == "mailto":
        return None if "@" in parts.path else "no address"
    if parts.scheme or parts.netloc:
        host = parts.hostname or ""
        well = parts.scheme == "https" or host in ("localhost", "127.0.0.1")
        return None if well and ("." in host or host == "localhost") and " " not in link else "no https address"
    if link.startswith("/"):
        return "begins at a root"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_relative_to(REPOSITORY) or not target.exists():
        return "no such file"
    if parts.fragment and target.suffix == ".md" and parts.fragment not in anchors(target):
        return "no such heading"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document):
    wrong = [(link, why) for link in links(document) if (why := broken(document, link))]
    assert wrong == []


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    page, other = tmp_path / "a.md", tmp_path / "b.md"
    other.write_text("# One thing: `b`\n# Twice\n# Twice\n```\n# no heading\n```\n")
    page.write_text(
        "[1](b.md#one-thing-b) [2](b.md#twice-1) [3](b.md#no-heading) [4](c.md) `[5](d.md)` [6](http://x.org)\n"
        '[7](https://arxiv.org/abs/2508.18998) ![8](../up.png) <img src="e.png">\n```\n[9](f.md)\n```\n'
    )
    assert [link for link in links(page) if broken(page, link)] == [
        "b.md#no-heading", "c.md", "http://x.org", "../up.png", "e.png",
    ]  # fmt: skip


# ---- what follows from the code


@pytest.mark.parametrize("name", reference.PAGES)
def test_reference_pages_are_the_codes(name):
    written = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "run: ta dev docs --reference"


def test_the_reference_has_every_command_and_option():
    """Counted in the help texts, which the page is not made from."""
    import typer

    from tiny_audio.cli.main import app

    page, root = (reference.FOLDER / "cli.md").read_text(encoding="utf-8"), typer.main.get_command(app)
    for command, context in reference.walk(root, "ta"):
        section = page.split(f"# {context.command_path}\n", 1)[1].split("\n#", 1)[0]
        for option in set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", command.get_help(context), re.MULTILINE)) - {"--help"}:
            assert option in section, f"{context.command_path} {option}"


# ---- the command


@pytest.mark.parametrize("exit_code", [0, 1])
def test_the_command_writes_the_reference_then_serves_here_only(monkeypatch, exit_code):
    calls = []

    def called(command, cwd, **options):
        calls.append(command[2:])
        return subprocess.CompletedProcess(command, exit_code)

    monkeypatch.setattr(dev.subprocess, "run", called)
    assert run(["dev", "docs", "--reference", "--serve"]) == exit_code
    served = ["mkdocs", "serve", "--livereload", "--dev-addr", "127.0.0.1:8000", "--strict"]
    assert calls == [["recipes.reference"], served][: 1 if exit_code else 2]


def test_a_missing_extra_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(dev.importlib.util, "find_spec", lambda name: None)
    assert run(["dev", "docs"]) == 1
    assert (
        capsys.readouterr().err == "Error: mkdocs is not installed: run `pip install -e '.[docs]'` in the checkout.\n"
    )
