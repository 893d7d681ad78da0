"""`ta demo`: its page in a real browser with microphone, files and two models; its limits, errors and visitors."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from data_helpers import sine, wav_bytes

from tiny_audio import load_audio
from tiny_audio.assets import embedded
from tiny_audio.cli.main import run
from tiny_audio.demo.calls import Demo
from tiny_audio.demo.listener import Listener, differences
from tiny_audio.demo.live import LiveText
from tiny_audio.demo.settings import KNOBS, Settings, generation_of
from tiny_audio.errors import TinyAudioError
from tiny_audio.transcription import find_audio, render, transcribe_files

JACK, DIGITS, PERCENT = (
    embedded("clips") / f"{name}.ogg"
    for name in (
        "send-a-message-to-jack",
        "eight-one-eight-oh-seven-three-three-three",
        "what-is-eighty-seven-percent-of-ninety",
    )
)
DESK, PHONE = {"width": 1100, "height": 900}, {"width": 390, "height": 844}
MAX_MINUTES, MAX_UPLOAD_MB, QUEUE = 0.25, 1, 3
SLACK = 4  # CI's machines are slower, and busy
PATIENCE = 60_000  # ms
LOUD = "window.alert('a file name ran as a script')"
HOSTILE = f'<img src=x onerror="{LOUD}">.ogg'


# ---- the server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`ta demo` as a process of its own, with a folder of its own for temporary files."""

    def __init__(self, folder: Path, *options: str, program: tuple[str, ...] = ("-m", "tiny_audio.cli.main")):
        self.port, self.folder, self.log = free_port(), folder, folder / "log.txt"
        self.url = f"http://127.0.0.1:{self.port}/"
        self.started = time.monotonic()
        command = [sys.executable, *program, "demo", "--port", str(self.port), *options]
        variables = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stderr=self.log.open("w"), env=variables)
        while "runs at" not in self.said():
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def post(self, path: str, body: bytes, kind: str = "application/json"):
        request = urllib.request.Request(self.url + "gradio_api/" + path, body, {"Content-Type": kind})
        return json.load(urllib.request.urlopen(request, timeout=60))

    def run(self, name: str, *data):
        return self.post(f"run/{name}", json.dumps({"data": data}).encode())["data"][0]

    def upload(self, content: bytes, name: str) -> str:
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        return self.post("upload", head + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")[0]

    def transcribe(self, path: str, generation: dict | None = None) -> list[dict]:
        """All events of one recording."""
        body = json.dumps({"data": [path, "a name", generation or {}]}).encode()
        event = self.post("call/transcribe", body)["event_id"]
        answer = urllib.request.urlopen(f"{self.url}gradio_api/call/transcribe/{event}", timeout=120).read().decode()
        return list(
            filter(None, (json.loads(data)[0] for data in re.findall(r"event: generating\ndata: (.*)", answer)))
        )

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def server(chromium, tmp_path_factory, tiny_checkpoint):
    """nano beside a random model without a CTC head, with narrow limits; ends clean, with nothing left behind."""
    models = ["-m", "nano", "-m", str(tiny_checkpoint)]
    limits = [f"--max-minutes={MAX_MINUTES}", f"--max-upload-mb={MAX_UPLOAD_MB}", f"--queue={QUEUE}"]
    server = Server(tmp_path_factory.mktemp("demo"), *models, *limits)
    yield server
    uploads = [file for file in server.folder.glob("tiny-audio-demo-*/**/*") if file.is_file()]
    server.stop()
    assert uploads == [] and list(server.folder.glob("tiny-audio-demo-*")) == []
    assert "Traceback" not in server.said() and "Warning" not in server.said()


@pytest.fixture(scope="module")
def listener():
    listener = Listener("nano", device="cpu")
    listener.load()
    return listener


@pytest.fixture(scope="module")
def expected(listener):
    """What nano hears in a file, as the library says."""
    return lambda path: listener.hear(path.name, load_audio(path), {})


# ---- the browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """Debian's Chromium, driven by Playwright; its microphone hears DIGITS once, and then nothing."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium here")
    playwright = pytest.importorskip("playwright.sync_api")
    spoken = tmp_path_factory.mktemp("microphone") / "digits.wav"
    spoken.write_bytes(wav_bytes(np.concatenate([load_audio(DIGITS), np.zeros(160_000, np.float32)])))
    options = [
        "--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={spoken}%noloop",
    ]  # fmt: skip
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


# What is played, [offset, seconds] of each call to the browser's own audio source, and the words that are marked then.
SPY = """window.played = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, ...stretch) {
  if (this.context instanceof AudioContext) window.played.push(stretch);
  return start.call(this, when, ...stretch);
};
window.heard = [];
new MutationObserver(() => {
  const word = document.querySelector(".word.heard");
  if (word && word !== window.last) window.heard.push(word.innerText);
  window.last = word;
}).observe(document, { attributes: true, subtree: true, attributeFilter: ["class"] });"""


@pytest.fixture(scope="module")
def browse(chromium):
    """`browse(server)` → its page, usable; afterwards it has asked nobody else for anything, and complained of nothing."""
    opened, complaints, requests = [], [], []

    def make(server: Server, state: str = "ready", **options):
        context = chromium.new_context(viewport=DESK, permissions=["microphone"], **options)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.add_init_script(SPY)
        page.goto(server.url)
        if state:
            page.wait_for_selector(f"body[data-state={state}]")
        opened.append(context)
        return page

    yield make
    for context in opened:
        context.close()
    assert [text for text in complaints if not re.search(r"\b(400|401|503)\b", text)] == []
    assert [url for url in requests if not url.startswith(("http://127.0.0.1:", "blob:", "data:"))] == []


@pytest.fixture(scope="module")
def first_page(browse, server):
    """The page, open since the server's start, and the seconds until it could be used."""
    page = browse(server)
    return page, time.monotonic() - server.started


@pytest.fixture
def page(first_page):
    page, _ = first_page
    page.set_viewport_size(DESK)
    page.emulate_media(color_scheme="light")
    return page


def hear(page, *files) -> list[str]:
    """Uploads a file, as a path or as name and content; the texts that are shown then, or the error."""
    given = [{"name": f[0], "mimeType": "audio/ogg", "buffer": f[1]} if isinstance(f, tuple) else f for f in files]
    page.set_input_files("#file", given[0])
    page.wait_for_selector("#result:not([hidden]) article:nth-child(2), #error:not([hidden])")
    page.wait_for_selector("body[data-state=ready]")
    error = page.locator("#error")
    return [error.inner_text()] if error.is_visible() else texts(page)


def texts(page) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(".words").all_inner_texts()]


# ---- files


def test_a_page_that_can_be_used_within_15_s(server, first_page):
    page, seconds = first_page
    assert seconds <= 15 * SLACK
    assert hear(page, JACK)[0] == "send a message to jack"
    page.wait_for_selector("#models li.ready:nth-child(2)")


def test_words_with_their_times_and_a_click_plays_exactly_one(page, expected):
    assert hear(page, JACK)[0] == "send a message to jack"
    words = expected(JACK)["words"]
    shown = page.locator("article:first-child .word.timed")
    assert [float(start) for start in shown.evaluate_all("all => all.map((each) => each.dataset.start)")] == [
        word["start"] for word in words
    ]
    assert page.locator(".lane .mark").all_inner_texts() == [word["text"] for word in words]
    message = words[2]
    shown.nth(2).click()
    assert page.evaluate("played.at(-1)") == pytest.approx([message["start"], message["end"] - message["start"]])
    page.wait_for_selector(".word.heard:text-is('message')")
    assert page.locator(".mark.heard").all_inner_texts() == ["message"]
    page.wait_for_selector("body:not(:has(.heard))")  # and then it stops


def test_the_word_that_is_heard_is_marked_while_all_is_played(page):
    hear(page, DIGITS)
    page.evaluate("heard.length = 0")
    page.get_by_role("button", name="Play").click()
    assert page.evaluate("played.at(-1)[0]") == 0
    page.wait_for_selector("#play.on")
    page.wait_for_selector("#play:not(.on)")
    marked = page.evaluate("heard")
    said = iter("eight one eight oh seven three three three".split())
    assert len(marked) > 2 and all(word in said for word in marked)  # in order; a busy machine may leave some out
    assert page.locator(".heard").count() == 0


def test_playing_can_be_stopped(page):
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").click()
    assert page.locator("#time").inner_text().startswith("0.00 /")


def test_the_keyboard_plays_a_word(page, expected):
    hear(page, JACK)
    page.locator(".word.timed").last.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("played.at(-1)[0]") == expected(JACK)["words"][-1]["start"]
    page.locator("#track").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Space")


def test_human_speech(page, speech):
    spoken = speech / "spoken-digits" / "test" / "7_theo_1.flac"
    assert hear(page, spoken)[0] == "seven"


def test_an_example_that_ships(page):
    page.get_by_role("button", name="what is eighty seven percent of ninety").click()
    page.wait_for_selector("#name:text-is('what-is-eighty-seven-percent-of-ninety.ogg')")
    page.wait_for_selector("article:nth-child(2)")
    page.wait_for_selector("body[data-state=ready]")
    assert texts(page)[0] == "what is eighty seven percent of ninety"


def test_two_models_side_by_side(page, tiny_checkpoint):
    hear(page, DIGITS)
    assert page.locator("h2").all_inner_texts() == ["nano", "/".join(tiny_checkpoint.parts[-2:])]
    first, second = page.locator("article").all()
    assert first.locator(".word.differs").count() == first.locator(".word").count() == 8
    assert second.locator(".word.differs").count() == second.locator(".word").count()
    assert "no CTC head" in second.inner_text() and "no CTC head" not in first.inner_text()
    assert second.locator(".word.timed").count() == 0
    assert "the models differ" in page.locator("#legend").inner_text()
    left, right = first.bounding_box(), second.bounding_box()
    assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]


@pytest.mark.parametrize("format", ["txt", "srt", "vtt", "json"])
def test_downloads_are_those_of_ta_transcribe(page, expected, format):
    if "jack" not in page.locator("#name").inner_text():
        hear(page, JACK)
    with page.expect_download() as download:
        page.get_by_role("link", name=f"Download as {format}").first.click()
    assert download.value.suggested_filename == f"{JACK.stem}.{format}"
    content = Path(download.value.path()).read_text(encoding="utf-8")
    assert content == expected(JACK)["documents"][format]
    if format == "srt":
        assert content == "1\n00:00:00,305 --> 00:00:01,880\nsend a message to jack\n"
    if format == "txt":
        assert content == "send a message to jack\n"


def test_documents_are_those_of_the_command_line(listener, expected):
    (transcript,) = transcribe_files(listener.model, find_audio([str(JACK)]), timestamps="phrase")
    assert expected(JACK)["documents"]["vtt"] == render(transcript, "vtt")


def test_settings_reach_the_model_and_keep_their_bounds(page):
    page.get_by_text("Settings").click()
    tokens = page.get_by_label("Longest text, tokens")
    try:
        tokens.fill("2")
        assert len(hear(page, DIGITS)[0].split()) <= 2
        tokens.fill("100000")
        assert hear(page, DIGITS) == ["Longest text, tokens is 100000; expected a whole number from 1 to 512."]
    finally:
        tokens.fill("")
        page.get_by_text("Settings").click()


# ---- the microphone


def test_text_while_recording_and_the_text_of_the_file_at_the_end(page, expected):
    page.get_by_role("button", name="Record").click()
    page.wait_for_selector("body[data-state=recording]")
    page.wait_for_selector("#live-text:text-matches('eight|one|seven|three')")
    page.wait_for_selector("#live-text:text-is('eight one eight oh seven three three three')")
    page.locator("#record").click()
    page.wait_for_selector("article:nth-child(2)")
    page.wait_for_selector("body[data-state=ready]")
    assert texts(page)[0] == expected(DIGITS)["text"]
    assert page.locator("#name").inner_text() == "recording.wav"
    page.locator(".word.timed").nth(4).click()
    page.wait_for_selector(".word.heard:text-is('seven')")


def test_a_file_in_place_of_a_recording(page):
    page.get_by_role("button", name="Record").click()
    page.wait_for_selector("body[data-state=recording]")
    assert hear(page, PERCENT)[0] == "what is eighty seven percent of ninety"
    assert page.locator("#record").get_attribute("aria-pressed") == "false"
    assert not page.locator("#live").is_visible()


@pytest.mark.parametrize("name", ["..ogg", ".ogg"])
def test_a_download_of_what_has_no_name(page, name):
    hear(page, (name, JACK.read_bytes()))
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as srt").first.click()
    assert download.value.suggested_filename == "recording.srt"


# ---- limits and errors: one line each, and the page goes on


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ogg", JACK.read_bytes()[:50] + b"broken" * 99, "The audio is not readable audio"),
        ("a.wav", b"", "The audio is empty (0 bytes)"),
        ("a.wav", wav_bytes(sine(16)), f"The recording is longer than {MAX_MINUTES} minutes, the longest taken here; cut it."),
        ("a.wav", bytes(1_000_001), f"The file is larger than {MAX_UPLOAD_MB} MB, the most that is taken here."),
    ],
    ids=["corrupt", "empty", "long", "large"],
)  # fmt: skip
def test_what_cannot_be_taken_is_one_line(page, name, content, message):
    (error,) = hear(page, (name, content))
    assert error.startswith(message) and "\n" not in error and "/" not in error
    assert hear(page, PERCENT)[0] == "what is eighty seven percent of ninety"


def test_the_server_itself_refuses_what_is_too_large(server):
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.upload(bytes(1_100_000), "large.wav")
    assert refused.value.code == 413


@pytest.mark.parametrize("path", ["/etc/passwd", str(JACK), "tests/../x", "", "\0"])
def test_only_uploads_are_read(server, path):
    (event,) = server.transcribe(path)
    assert list(event) == ["error"]


@pytest.mark.parametrize(
    "generation", [{"num_beams": 100}, {"num_beams": 1.5}, {"num_beams": True}, {"do_sample": True}]
)
def test_settings_that_nobody_may_choose(server, generation):
    (event,) = server.transcribe(server.upload(JACK.read_bytes(), "a.ogg"), generation)
    assert "expected" in event["error"]


def test_settings_leave_no_lines_of_transformers_in_the_log(server):
    generation = {"repetition_penalty": 1.05, "no_repeat_ngram_size": 9, "length_penalty": 0.5}
    assert "result" in server.transcribe(server.upload(JACK.read_bytes(), "a.ogg"), generation)[1]
    assert "transformers" not in server.said() and "Warning" not in server.said()


def test_a_full_queue_says_so(server):
    """A few of many recordings at the same moment are heard, the others told to come again; and it goes on."""
    paths = [server.upload(JACK.read_bytes(), f"{number}.ogg") for number in range(12)]

    def one(path: str) -> str | int:
        try:
            return server.transcribe(path, {"num_beams": 8})[1]["result"]["text"]
        except urllib.error.HTTPError as error:
            return error.code

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, paths))
    assert set(answers) == {"send a message to jack", 503}
    for path in paths:
        Path(path).unlink(missing_ok=True)
    assert server.transcribe(server.upload(DIGITS.read_bytes(), "a.ogg"))[1]["result"]["text"].startswith("eight one")


def test_a_full_queue_on_the_page(server, page):
    page.route("**/call/transcribe", lambda route: route.fulfill(status=503))  # what the server says then, as above
    try:
        assert hear(page, JACK) == ["Too many recordings are waiting; try again in a moment."]
    finally:
        page.unroute("**/call/transcribe")
        for upload in server.folder.glob("tiny-audio-demo-*/*/*"):  # which would be swept an hour later
            upload.unlink()


def test_visitors_do_not_mix(server):
    """Several at the same time, some of them with the very same file."""
    clips = [JACK, DIGITS, JACK]

    def visit(number: int) -> str:
        clip = clips[number]
        return server.transcribe(server.upload(clip.read_bytes(), f"{number}.ogg"))[1]["result"]["text"]

    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(visit, range(3))) == [clip.stem.replace("-", " ") for clip in clips]


def test_addresses_are_off(server, page):
    assert not page.locator("#address").is_visible()
    body = json.dumps({"data": ["https://example.org/a.wav"]}).encode()
    event = server.post("call/fetch", body)["event_id"]
    answer = urllib.request.urlopen(f"{server.url}gradio_api/call/fetch/{event}", timeout=60).read().decode()
    assert "Addresses are switched off" in answer


# ---- how it looks


def test_names_are_shown_never_run(page):
    assert hear(page, (HOSTILE.replace("/", ""), JACK.read_bytes()))[0] == "send a message to jack"
    assert page.locator("#name").inner_text().startswith("<img")
    assert page.locator("main img").count() == 0


def test_a_phone_scrolls_only_downwards(page):
    hear(page, DIGITS)
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    wide = "all => all.filter((each) => each.getBoundingClientRect().right > innerWidth).map((each) => each.outerHTML)"
    assert page.locator("button, a, input, label, p").evaluate_all(wide) == []


def test_dark_as_the_system_is_and_by_its_switch(page):
    shade = "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    assert page.evaluate(shade) > 200
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(shade) < 60
    page.get_by_role("button", name="Dark mode").click()
    assert page.evaluate(shade) > 200
    page.evaluate("localStorage.clear(); delete document.documentElement.dataset.theme")


def test_all_that_can_be_used_has_a_name(page):
    hear(page, JACK)
    page.locator("details").evaluate("each => each.open = true")
    snapshot = page.locator("body").aria_snapshot()
    page.locator("details").evaluate("each => each.open = false")
    controls = re.findall(r"- (button|link|textbox|spinbutton)( \"[^\"]+\")?", snapshot)
    assert len(controls) > 20 and all(name for _, name in controls)


# ---- who may use it

# `ta` for which 127.0.0.1 counts as a public host: there is no other here.
ONE_PUBLIC_HOST = """
import functools, sys
from tiny_audio.cli import main
from tiny_audio.demo import calls
calls.download = functools.partial(calls.download, allowed=lambda address: address == "127.0.0.1")
main.main()
"""


def test_a_name_and_password_and_recordings_from_addresses(browse, tmp_path):
    options = ["--host=0.0.0.0", "--auth=me:a:secret", "--urls", "--max-minutes=0.05"]
    server = Server(tmp_path, *options, program=("-c", ONE_PUBLIC_HOST))
    page = browse(server, state="")
    for call in ("run/about", "call/transcribe", "upload"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.post(call, b'{"data": []}')
        assert refused.value.code == 401
    for password in ("wrong", "a:secret"):
        page.get_by_label("Name").fill("me")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()
        if password == "wrong":
            page.wait_for_selector(".refused:not([hidden])")
    page.wait_for_selector("body[data-state=ready]")
    recording = f"{server.url}clips/{JACK.name}"
    for address, outcome in (
        (recording.replace("127.0.0.1", "127.0.0.2"), "#error:has-text('private network')"),
        (f"{server.url}page/page.js", "#error:has-text('is not readable audio')"),
        (recording, "article .words:has-text('send a message to jack')"),
    ):
        page.get_by_label("Address of a recording").fill(address)
        page.get_by_role("button", name="Fetch").click()
        page.wait_for_selector(outcome)
    assert not page.locator("#play").is_disabled() and page.locator("#name").inner_text() == JACK.name
    page.get_by_role("button", name="Record").click()
    page.wait_for_selector("#name:text-is('recording.wav')")  # it stops by itself, before it is too long
    page.wait_for_selector("article .words:has-text('eight one eight')")
    page.close()
    assert "Warning" not in server.said()
    server.stop()
    assert not list(tmp_path.glob("tiny-audio-demo-*"))


def test_everybody_s_address_without_a_password_is_warned_of(monkeypatch):
    from tiny_audio.demo import server

    assert server.is_open_to_others(Settings(host="0.0.0.0"))
    assert not server.is_open_to_others(Settings(host="0.0.0.0", auth=("me", "secret")))
    assert not server.is_open_to_others(Settings())
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")  # as in a Space, which is open on purpose
    assert not server.is_open_to_others(Settings())
    assert Settings().address == ("0.0.0.0", 7860)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-m", "./nowhere"], 1, "Error: The model ./nowhere does not exist; expected"),
        (["--max-minutes", "0"], 1, "Error: max_minutes of the demo is 0.0; expected a number above 0."),
        (["-m", "a", "-m", "b", "-m", "c"], 2, "3 models are named"),
        (["--auth", "me"], 2, "--auth holds no colon"),
    ],
)
def test_what_cannot_start_is_one_line(arguments, code, message, capsys):
    assert run(["demo", *arguments]) == code
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in printed and "Traceback" not in printed


def test_a_port_that_is_taken(server, capsys):
    assert run(["demo", "--port", str(server.port)]) == 1
    line = f"Error: The demo cannot listen on 127.0.0.1, port {server.port}; choose another with --port.\n"
    assert capsys.readouterr().err == line


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert run(["demo"]) == 1
    assert "run `pip install 'tiny-audio[demo]'`" in capsys.readouterr().err


# ---- parts


def chunks_of(waveform: np.ndarray, seconds: float):
    size = int(seconds * 16_000)
    for start in range(0, len(waveform), size):
        yield base64.b64encode((waveform[start : start + size] * 32767).astype("<i2").tobytes()).decode()


def test_live_text_grows_to_the_text_of_the_file(listener, expected):
    live = LiveText(listener, limit=1, max_seconds=60)
    seen = [live.add("one", chunk, {}) for chunk in chunks_of(load_audio(DIGITS), 0.5)]
    assert seen[-1] == expected(DIGITS)["text"] and len(set(seen)) > 2
    assert live.add("another", "", {}) is None  # more than the limit
    live.end("one")
    assert live.add("another", "", {}) == ""


def test_live_text_of_many_minutes_holds_one_window(listener):
    live = LiveText(listener, limit=1, max_seconds=999)
    spoken = np.concatenate(
        [np.concatenate([load_audio(clip), np.zeros(8000, np.float32)]) for clip in (JACK, DIGITS, PERCENT)]
    )
    for chunk in chunks_of(np.tile(spoken, 5), 15):  # 45 s
        text = live.add("one", chunk, {"max_new_tokens": 2})
    recording = live._recordings["one"]
    assert len(recording.settled) == 1 and text.startswith(recording.settled[0])
    assert sum(map(len, recording.held)) < 30 * 16_000


def test_live_text_never_waits(listener):
    live = LiveText(listener, limit=1, max_seconds=3)
    first, second, *_ = chunks_of(load_audio(JACK), 1.0)
    text = live.add("one", first, {})
    with listener.lock:  # somebody else's recording is decoded
        assert live.add("one", second, {}) == text
    assert live.add("one", "", {}) != text  # nothing was lost
    assert live.add("one", base64.b64encode(bytes(100_000)).decode(), {}) is None  # longer than is taken


def test_a_recording_before_the_model_is_there_is_kept():
    listener = Listener("nano", device="cpu")
    live = LiveText(listener, limit=1, max_seconds=60)
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(listener.hear, "a", load_audio(JACK), {})
        assert [live.add("one", chunk, {}) for chunk in chunks_of(load_audio(JACK), 1.0)] == ["", "", ""]
        assert listener.status()["state"] == "loading" and not heard.done()
        listener.load()
        assert heard.result()["text"] == live.add("one", "", {}) == "send a message to jack"


def test_a_model_that_cannot_be_loaded_is_told_to_those_who_wait(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    listener = Listener(str(tmp_path))
    listener.load()
    assert listener.status()["state"] == "failed" and "cannot be loaded" in listener.status()["error"]
    with pytest.raises(TinyAudioError, match="cannot be loaded"):
        listener.hear("a", np.zeros(100, np.float32), {})


LONG = np.tile(load_audio(DIGITS), 120)  # some minutes: far more than one batch


def test_who_has_gone_does_not_occupy_the_model(tmp_path):
    demo = Demo(["nano"], Settings(device="cpu", max_minutes=60), tmp_path)
    demo.load()
    file = tmp_path / "long.wav"
    file.write_bytes(wav_bytes(LONG))
    events = demo.transcribe(str(file), "long", {"num_beams": 8})
    assert list(next(events)) == ["sound"] and next(events) == {}  # it is being heard
    assert demo.listeners[0].lock.locked()
    events.close()  # as Gradio does then
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        assert (
            pool.submit(demo.listeners[0].hear, "a", load_audio(JACK), {}).result()["text"] == "send a message to jack"
        )
        assert time.monotonic() - began < 5 * SLACK


def test_it_ends_well_while_it_hears(tmp_path):
    server = Server(tmp_path, "-m", "nano", "--max-minutes=60", "--max-upload-mb=100")
    path = server.upload(wav_bytes(LONG), "long.wav")
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(server.transcribe, path, {"num_beams": 8})
        while Path(path).exists():
            time.sleep(0.05)
        time.sleep(1)  # in the middle of it
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=10 * SLACK) == 0, server.said()
        heard.exception()
    assert "terminate called" not in server.said() and "Traceback" not in server.said()


def words(text: str) -> list[dict]:
    return [{"text": word} for word in text.split()]


@pytest.mark.parametrize(
    ("first", "second", "marked"),
    [
        ("one two three", "One, two three.", ([], [])),
        ("one two three", "one too three", ([1], [1])),
        ("one two three", "one three", ([1], [])),
        ("", "one", ([], [0])),
    ],
)
def test_differences(first, second, marked):
    assert differences(words(first), words(second)) == marked


@pytest.mark.filterwarnings("ignore:Passing")
def test_knobs_are_parameters_of_generate(listener):
    from transformers import GenerationConfig

    for knob in KNOBS:
        assert hasattr(GenerationConfig(), knob.name)
        for value in {knob.low, knob.high}:
            generation = generation_of({"max_new_tokens": 3, knob.name: int(value)})
            assert "error" not in listener.hear("a", load_audio(JACK), generation)
