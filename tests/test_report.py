"""`ta analysis report`: the page in a real browser: lists, filters, figures, sound, phone, dark, and 10,000 clips."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from analysis_helpers import CLIPS, clips_of, write_large_runs, write_run
from data_helpers import sine, wav_bytes

from tiny_audio.analysis.report import audio, write_report
from tiny_audio.analysis.report.figures import BINS, histogram, slice_figures
from tiny_audio.analysis.runs import open_runs
from tiny_audio.analysis.slices import slices_of
from tiny_audio.assets import embedded
from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import RESULTS, ClipResult

HOSTILE = "</script><img src=x onerror=alert(1)>"
LONG = "a_name_without_any_place_to_break_it_in_two"
NO_LETTER = "\udc80"  # what is left of a byte that is no UTF-8
MAX_PAGE_BYTES = 5 * 10**6
CLIPS_A_PAGE = 25
DESK, PHONE = {"width": 1100, "height": 800}, {"width": 375, "height": 800}
SLACK = 3  # CI's machines are slower, and busy

# id, reference, what A and B made of it
TEXTS = [
    ("refused", "never heard", None, "never heard"),
    ("same", "one two three", "one two three", "one two three"),
    ("better", "turn the kitchen lights on", "turn the chicken light on", "turn the kitchen lights on"),
    ("worse", "call me a taxi please", "call me a taxi please", "call me taxi please right now"),
    ("script", f"{HOSTILE} &amp; more", f"{HOSTILE} less", HOSTILE),
    ("silence", "", "hello", ""),
]
TONE = 2000.0  # Hz
SOUND = {
    "same": "tone.wav",
    "better": "send-a-message-to-jack.ogg",
    "worse": "what-is-eighty-seven-percent-of-ninety.ogg",
}


# ---- runs to show


def made_up(folder: Path, predictions: Sequence[str | None], **fields: Sequence) -> Path:
    """A results folder with the clips of TEXTS; HOSTILE stands also in model and error."""
    names, references = zip(*((name, reference) for name, reference, *_ in TEXTS), strict=True)
    columns = [{"speaker": f"speaker of {name}", LONG: LONG * 5 + NO_LETTER} for name in names]
    texts = list(zip(references, predictions, strict=True))
    clips = clips_of(texts, "none", id=names, metadata=columns, snr=[20.0] * len(names), **fields)
    failed = [replace(clip, error=HOSTILE) if clip.failed else clip for clip in clips]
    write_run(folder, failed, model=f"<b>{folder.name}</b>", normalizer="none")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """Runs A and B; some clips lie as files in A's folder, as `ta eval --keep-audio` puts them there."""
    root = tmp_path_factory.mktemp("evaluations")
    sounds = [f"audio/{SOUND[name]}" if name in SOUND else None for name, *_ in TEXTS]
    folders = [made_up(root / letter, [row[2 + run] for row in TEXTS], audio=sounds) for run, letter in enumerate("AB")]
    shutil.copytree(embedded("clips"), folders[0] / "audio")
    (folders[0] / "audio" / SOUND["same"]).write_bytes(wav_bytes(sine(0.5, hertz=TONE)))
    return folders


@pytest.fixture(scope="module")
def page_file(folders) -> Path:
    return write_report(open_runs(list(map(str, folders))), folders[0].parent / "reports" / "report.html")


@pytest.fixture(scope="module")
def inlined_file(folders) -> Path:
    return write_report(open_runs([str(folders[0])]), folders[0].parent / "inlined.html", inline_audio=True)


# ---- the browser


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, driven by Playwright."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium here")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = driver.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browse(chromium):
    """`browse(file)` → the page, open; afterwards it has asked for files only, and complained of nothing."""
    opened, complaints, requests = [], [], []

    def make(file: Path, **options):
        page = chromium.new_page(viewport=DESK, **options)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append("a text ran as a script"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.resolve().as_uri())
        page.wait_for_selector("body[data-ready]")
        opened.append(page)
        return page

    yield make
    for page in opened:
        page.close()
    assert not complaints
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def opened(browse, page_file):
    """A and B, opened once; a test takes `page`."""
    return browse(page_file)


@pytest.fixture(scope="module")
def opened_inlined(browse, inlined_file):
    return browse(inlined_file)


def as_new(page, items: int = len(TEXTS)):
    """The page as it was opened, with so many clips in the list."""
    page.set_viewport_size(DESK)
    page.emulate_media(color_scheme="light")
    page.click("button[type=reset]")
    wait_for(page, items)
    return page


@pytest.fixture
def page(opened):
    return as_new(opened)


@pytest.fixture
def inlined(opened_inlined):
    return as_new(opened_inlined)


def wait_for(page, items: int) -> None:
    """Until the list has so many clips."""
    page.locator(f"#list:not(:has(li:nth-child({items + 1}))) > li:nth-child({items})").wait_for()


def shown(page) -> list[str]:
    """The ids of the clips in the list, in order."""
    return page.locator("#list > li .head strong").all_inner_texts()


def choose(page, **fields) -> None:
    """Fill in the filters as a reader does."""
    for name, value in fields.items():
        field = page.locator(f"#filters [name={name}]")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        elif field.get_attribute("type") == "checkbox":
            field.set_checked(value)
        else:
            field.fill(value)


# ---- what the page shows


def test_the_scores(page):
    rows = page.locator("#scores tbody tr").all()
    head = page.locator("#scores th").all_inner_texts()
    first = dict(zip(head, rows[0].locator("td").all_inner_texts(), strict=True))
    assert first["run"] == "A: A" and first["model"] == "<b>A</b>"
    counted = [first[name] for name in ("S/D/I", "SER", "clips", "failed", "RTFx")]
    assert counted == ["3/1/1", "60.00%", "6", "1", "20.0"]
    assert first["WER"] == f"{5 / 18:.2%}"
    assert len(rows) == 2


def test_sorting(page):
    assert shown(page)[:2] == ["silence", "better"] and shown(page)[-1] == "refused"  # WER 100 %, 40 %; failed: none
    choose(page, ascending=True)
    assert shown(page)[-2:] == ["silence", "refused"]
    choose(page, order="id", ascending=False)
    assert shown(page) == sorted((name for name, *_ in TEXTS), reverse=True)
    choose(page, order="change", ascending=False)
    assert shown(page)[0] == "worse"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "KITCHEN"}, {"better"}),
        ({"text": "right now"}, {"worse"}),  # only B said it
        ({"text": "speaker of same"}, {"same"}),
        ({"kind": "wrong"}, {"better", "worse", "script", "silence"}),
        ({"kind": "failed"}, {"refused"}),
        ({"kind": "better"}, {"better", "silence"}),
        ({"kind": "worse"}, {"worse"}),
        ({"low": "40", "high": "60"}, {"better", "script"}),
        ({"high": "0"}, {"same", "worse"}),
        ({"text": "no such words"}, set()),
    ],
)
def test_filters(page, fields, expected):
    choose(page, **fields)
    assert set(shown(page)) == expected
    assert page.locator("#count").inner_text() == f"{len(expected)} of {len(TEXTS)} clips"
    assert set(shown(as_new(page))) == {name for name, *_ in TEXTS}


def test_the_runs_that_are_compared_can_be_swapped(page):
    choose(page, first="1", second="0", kind="better")
    assert shown(page) == ["worse"]
    assert "better in A than in B" in page.locator("#filters [name=kind]").inner_text()


def test_differences_are_marked_word_by_word(page):
    a, b = page.locator("li", has_text="speaker of better").locator(".take").all()
    assert a.locator("mark").all_inner_texts() == ["chicken", "light"]
    assert a.inner_text() == "A 40.0 % turn the chicken light on"
    assert b.locator("mark, ins, del").count() == 0
    _, b = page.locator("li", has_text="speaker of worse").locator(".take").all()
    assert (b.locator("del").all_inner_texts(), b.locator("ins, mark").count()) == (["a"], 2)
    reference = page.locator("li", has_text="speaker of better").locator(".reference")
    assert reference.locator(".missed").all_inner_texts() == ["kitchen", "lights"]
    colours = page.evaluate(
        "['mark', 'ins', 'del'].map(tag => getComputedStyle(document.querySelector(`.legend ${tag}`)).backgroundColor)"
    )
    assert len(set(colours)) == 3


def test_texts_stay_texts(page, page_file):
    assert HOSTILE not in page_file.read_text(encoding="utf-8")
    item = page.locator("li", has_text="speaker of script")
    assert item.locator(".reference").inner_text() == f"{HOSTILE} &amp; more"
    assert item.locator("img").count() == page.locator("main b b, main script, main img").count() == 0
    assert HOSTILE in page.locator("li", has_text="speaker of refused").locator(".failure").inner_text()


def test_the_page_may_ask_nobody(page_file):
    html = page_file.read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", html)


def test_raw_texts_and_metadata_are_one_click_away(page):
    item = page.locator("li", has_text="speaker of better")
    item.locator("summary").click()
    facts = dict(zip(item.locator("dt").all_inner_texts(), item.locator("dd").all_inner_texts(), strict=True))
    assert facts["prediction A"] == "turn the chicken light on"
    assert (facts["speaker"], facts["words a second"]) == ("speaker of better", "2.5")


# ---- figures


def click_mark(page, figure: str, x: float, y: float) -> None:
    """Click where the figure draws a mark, in its own units."""
    page.locator(f"#{figure}").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([figure, x, y]) => {
            const element = document.querySelector(`#${figure} > *`);
            const view = Object.values(window.Bokeh.index.roots ?? window.Bokeh.index).flat().find(root => root.el === element);
            const box = element.getBoundingClientRect();
            return [box.x + view.frame.x_scale.compute(x), box.y + view.frame.y_scale.compute(y)];
        }""",
        [figure, x, y],
    )
    page.mouse.click(x, y)


def test_a_click_on_a_point_shows_its_clip(page):
    click_mark(page, "scatter", 40, 0)
    wait_for(page, 1)
    assert shown(page) == ["better"]
    assert page.locator("#count").inner_text() == "1 of 6 clips, picked in a figure"
    assert len(shown(as_new(page))) == len(TEXTS)


def test_a_click_on_a_bar_shows_its_clips(page):
    click_mark(page, "histogram", 4.25, 0.8)  # in the left half of the bin up to 40 %
    wait_for(page, 2)
    assert shown(page) == ["better", "script"]


def test_bins_hold_their_upper_bound():
    rates = [0.0, 0.01, 0.1, 0.1 + 0.2, 0.31, 1.0, 1.01, 7.0, None]
    drawn = histogram([[ClipResult("", 1.0, "", wer=rate)] for rate in rates], 1)
    clips = dict(zip(BINS, drawn.renderers[0].data_source.data["clips"], strict=True))
    expected = {"0": [0], "10": [1, 2], "30": [3], "40": [4], "100": [5], ">100": [6, 7]}
    assert {label: numbers for label, numbers in clips.items() if numbers} == expected


def test_slices_are_bars(folders, opened):
    runs = open_runs([str(folder) for folder in folders])
    *_, by_speaker = slice_figures([slices_of(run) for run in runs])
    for bars, errors in zip(by_speaker.renderers[::2], (2, 0), strict=True):
        wer = dict(zip(bars.data_source.data["label"], bars.data_source.data["wer"], strict=True))
        assert wer["speaker of better"] == pytest.approx(100 * errors / 5)
    assert opened.locator("#slices > div").count() == 4  # duration, speech rate, SNR, speaker
    assert all(figure.bounding_box()["height"] > 80 for figure in opened.locator("#slices > div").all())


def test_one_run_has_no_comparison(inlined):
    assert not inlined.locator("#scatter, #filters [name=second]").first.is_visible()
    assert inlined.locator(".take").count() == len(TEXTS)


# ---- sound

BRIGHTNESS = """canvas => {
    const column = canvas.getContext("2d").getImageData(canvas.width >> 1, 0, 1, canvas.height).data;
    return Array.from({ length: canvas.height }, (_, row) => column[4 * row] + column[4 * row + 1] + column[4 * row + 2]);
}"""
PLAYED = """async player => {
    await player.play();
    await new Promise(done => player.addEventListener("timeupdate", () => player.currentTime > 0 && done()));
    return player.duration;
}"""
COLOURS = """canvas => {
    const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    return new Set(pixels).size;
}"""


def test_a_linked_clip_plays(page):
    assert page.locator("audio").count() == len(SOUND)
    player = page.locator("li", has_text="speaker of better").locator("audio")
    assert player.get_attribute("src") == f"../A/audio/{SOUND['better']}"
    assert 1 < player.evaluate(PLAYED) < 10  # seconds


def test_an_inlined_clip_plays_and_shows_its_spectrogram(inlined):
    item = inlined.locator("li", has_text="speaker of better")
    assert item.locator("audio").get_attribute("src").startswith("data:audio/ogg;base64,")
    seconds = item.locator("audio").evaluate(PLAYED)
    item.get_by_role("button", name="Spectrogram").click()
    item.locator("canvas").wait_for()
    assert item.locator("canvas").evaluate(COLOURS) > 100
    item.locator("audio").evaluate("player => player.pause()")
    item.locator("canvas").click(position={"x": 1, "y": 10})
    assert item.locator("audio").evaluate("player => player.currentTime") < seconds / 10


def test_the_spectrogram_has_a_tone_where_it_is(inlined):
    item = inlined.locator("li", has_text="speaker of same")
    item.get_by_role("button", name="Spectrogram").click()
    item.locator("canvas").wait_for()
    upwards = item.locator("canvas").evaluate(BRIGHTNESS)[::-1]  # in the middle of the clip, from 0 to 8 kHz
    tone = round(TONE * 512 / 16_000)
    assert upwards.index(max(upwards)) == tone
    assert max(upwards[: tone - 20] + upwards[tone + 20 :]) < 0.1 * max(upwards)


def test_a_linked_clip_shows_its_spectrogram_when_its_file_is_chosen(page, folders):
    item = page.locator("li", has_text="speaker of better")
    item.get_by_role("button", name="Spectrogram").click()
    item.locator("input[type=file]").set_input_files(folders[0] / "audio" / SOUND["better"])
    item.locator("canvas").wait_for()
    assert item.locator("canvas").evaluate(COLOURS) > 100


def test_inlined_sound_is_bounded(folders, monkeypatch, capsys, tmp_path):
    runs = open_runs([str(folders[0])])
    monkeypatch.setattr(audio, "INLINE_BYTES", (folders[0] / "audio" / SOUND["better"]).stat().st_size)
    text = write_report(runs, tmp_path / "small.html", inline_audio=True).read_text(encoding="utf-8")
    assert text.count('id="sound-') == 1  # the worst clip's
    assert "1 of 3 clips are inside the page" in capsys.readouterr().err


# ---- every screen


def test_a_phone_never_scrolls_sideways(page):
    page.set_viewport_size(PHONE)
    page.locator("li", has_text="speaker of better").get_by_role("button", name="Spectrogram").click()
    for summary in page.locator("summary").all():
        summary.click()
    page.wait_for_timeout(300)  # the figures follow
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.locator("#scatter").bounding_box()["width"] <= PHONE["width"]


def test_dark_mode(browse, page, page_file):
    dark = browse(page_file, color_scheme="dark")
    brightness = (
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b) / 3"
    )
    assert page.evaluate(brightness) > 230 and dark.evaluate(brightness) < 50
    assert mean_brightness(page) > mean_brightness(dark) + 100
    # The figures follow while the page is open.
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    assert mean_brightness(page) == pytest.approx(mean_brightness(dark), abs=1)


def mean_brightness(page) -> float:
    """Of the histogram's picture."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    return float(np.asarray(Image.open(BytesIO(page.locator("#histogram").screenshot())).convert("L")).mean())


# ---- real evaluations, and large ones


def test_a_real_evaluation(browse, tmp_path, capsys):
    results = tmp_path / "nano"
    assert run(["eval", "nano", "-d", "quickstart", "-n", "6", "--output-dir", str(results)]) == 0
    assert run(["analysis", "report", str(results), "-o", str(tmp_path / "report.html")]) == 0
    page = browse(tmp_path / "report.html")
    references = {json.loads(line)["reference"] for line in (results / RESULTS).read_text().splitlines()}
    assert set(page.locator(".reference").all_inner_texts()) == references
    assert page.locator("#slices figure, #slices > div").count() >= 3


def test_ten_thousand_clips(browse, tmp_path):
    """What making the page costs is in test_analysis_speed.py."""
    runs = write_large_runs(tmp_path) / "outputs/eval"
    file = write_report(open_runs([str(runs / "a"), str(runs / "b")]), tmp_path / "report.html")
    assert file.stat().st_size < MAX_PAGE_BYTES
    started = time.perf_counter()
    page = browse(file)
    assert time.perf_counter() - started < 3 * SLACK
    assert page.locator("#list > li").count() == CLIPS_A_PAGE
    assert page.evaluate(SLOWEST_FILTER) < 100 * SLACK  # ms
    as_new(page, CLIPS_A_PAGE).click("#next")
    assert page.locator("#where").inner_text() == f"2 of {CLIPS // CLIPS_A_PAGE}"


SLOWEST_FILTER = """() => {
    const form = document.getElementById("filters");
    const milliseconds = (name, value) => {
        const started = performance.now();
        form[name].value = value;
        form.dispatchEvent(new Event("input", { bubbles: true }));
        document.body.getBoundingClientRect();
        return performance.now() - started;
    };
    const uses = [["text", "clip-07"], ["text", ""], ["kind", "wrong"], ["low", "5"], ["order", "id"]];
    return Math.max(...uses.map(use => Math.min(...[1, 2, 3].map(() => milliseconds(...use)))));
}"""


def test_the_page_is_made_without_torch(folders, tmp_path):
    code = (
        "import sys; from pathlib import Path; from tiny_audio.analysis.report import write_report;"
        "from tiny_audio.analysis.runs import open_runs; write_report(open_runs(sys.argv[1:2]), Path(sys.argv[2]));"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(folders[0]), str(tmp_path / "report.html")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_too_many_runs_are_one_line(folders, tmp_path):
    with pytest.raises(TinyAudioError, match="27 runs were given; a report holds 26 at most"):
        write_report(open_runs([str(folders[0])]) * 27, tmp_path / "report.html")
