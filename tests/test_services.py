"""Services: what is sent and read, keys, retries, time-outs and prices, against servers that speak their wire formats."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from data_helpers import sine, wav_bytes, write_jsonl
from service_servers import DIALECTS, KEY, TIMEOUT, VARIABLES, Refused, Server, event_stream, serving

from tiny_audio import embedded, load_audio, retries
from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.prices import priced
from tiny_audio.evaluation.providers import PROVIDERS, open_provider
from tiny_audio.evaluation.providers import assemblyai as assemblyai_module
from tiny_audio.evaluation.providers.service import LONGEST_MESSAGE
from tiny_audio.evaluation.results import Metrics, read_results
from tiny_audio.evaluation.settings import EvalSettings

CLIPS = 16
SAMPLES = [4_000 + 100 * number for number in range(CLIPS)]
WORDS = "zero one two three four five six seven eight nine".split()
HEARD = {samples: f"{WORDS[i // 10]} {WORDS[i % 10]} and more" for i, samples in enumerate(SAMPLES)}


@pytest.fixture(autouse=True)
def fast_and_keyless(monkeypatch, tmp_path):
    """Short waits, no keys or prices of the machine."""
    monkeypatch.setattr(retries, "BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(assemblyai_module, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(params=DIALECTS)
def name(request) -> str:
    return request.param


@pytest.fixture()
def server(name):
    with serving(name, HEARD) as running:
        yield running
        assert running.wrong == []


@pytest.fixture()
def openai():
    with serving("openai", HEARD) as running:
        yield running
        assert running.wrong == []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Clips of different lengths, by which the servers know them, with what the servers hear as their text."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for samples, text in HEARD.items():
        (folder / f"{samples}.wav").write_bytes(wav_bytes(sine(samples / 16_000)))
        rows.append({"audio": f"{samples}.wav", "text": text, "id": str(samples)})
    return write_jsonl(folder / "test.jsonl", rows)


def settings_for(server: Server, **options) -> EvalSettings:
    name = next(name for name, dialect in DIALECTS.items() if type(server.dialect) is dialect)
    model = server.dialect.model
    return EvalSettings(
        **{"model": model, "provider": name, "base_url": server.url, "api_key": KEY, "timeout": TIMEOUT, **options}
    )


def clips(*numbers: int) -> list[np.ndarray]:
    return [sine(SAMPLES[number] / 16_000) for number in numbers]


def command(server: Server, corpus: Path, folder: Path, *options: str) -> list[str]:
    settings = settings_for(server)
    fixed = ["--provider", settings.provider, "-m", settings.model, "--base-url", server.url, "-d", str(corpus)]
    return ["eval", *fixed, "--output-dir", str(folder), "--timeout", str(TIMEOUT), "--normalizer", "basic", *options]


# ---- what is sent and what is read


def test_texts_arrive_in_order(server: Server) -> None:
    provider = open_provider(settings_for(server))
    order = (7, 0, 3, 11, 5)
    heard = provider.transcribe(clips(*order))
    assert [hypothesis.text for hypothesis in heard] == [HEARD[SAMPLES[number]] for number in order]
    assert all(0 < h.latency < 5 and h.words is None and h.first_token is None and h.error is None for h in heard)
    assert provider.device == settings_for(server).provider
    assert provider.decoding["base_url"] == server.url and provider.decoding["model"] == server.dialect.model
    assert KEY not in repr(provider.decoding) and KEY not in repr(vars(provider)["settings"])


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "endpoint"])
def test_word_times_and_speakers(name: str, server: Server) -> None:
    (heard,) = open_provider(settings_for(server, word_times=True)).transcribe(clips(12))
    assert [(w.text, w.start, w.end) for w in heard.words] == [
        (word, i * 0.5, i * 0.5 + 0.4) for i, word in enumerate(["one", "two", "and", "more"])
    ]
    speakers = {"openai": [None] * 2, "assemblyai": ["A", "B"], "deepgram": ["0", "1"]}
    assert [w.speaker for w in heard.words[:2]] == speakers.get(name, ["speaker_0", "speaker_1"])


def test_a_stream_tells_when_its_first_piece_came(openai: Server) -> None:
    (heard,) = open_provider(settings_for(openai, first_token=True)).transcribe(clips(12))
    assert heard.text == HEARD[SAMPLES[12]] and 0 < heard.first_token <= heard.latency


def test_a_stream_as_vllm_sends_it(openai: Server) -> None:
    pieces = [{"object": "transcription.chunk", "choices": [{"delta": {"content": c}}]} for c in "ab c"]
    openai.dialect.answer = lambda request: event_stream(*pieces, "[DONE]")
    (heard,) = open_provider(settings_for(openai, first_token=True, retries=0)).transcribe(clips(1))
    assert heard.text == "ab c" and heard.first_token > 0


def test_half_a_stream_is_no_text(openai: Server) -> None:
    delta = {"type": "transcript.text.delta", "delta": "half of"}
    answers = [event_stream(delta), event_stream({"error": {"message": "overloaded"}}), event_stream(delta, "{")]
    openai.dialect.answer = lambda request: answers.pop(0)
    (heard,) = open_provider(settings_for(openai, first_token=True, retries=2)).transcribe(clips(1))
    assert heard.error.startswith("a broken answer") and not heard.text and not answers


def test_a_model_that_does_not_stream_ends_the_run(openai: Server) -> None:
    openai.dialect.answer = lambda request: {"text": "all at once"}
    with pytest.raises(TinyAudioError, match="leave out --first-token"):
        open_provider(settings_for(openai, first_token=True)).transcribe(clips(1))


def test_default_models_are_named() -> None:
    services = {name: entry for name, entry in PROVIDERS.items() if entry.service}
    assert services.keys() == DIALECTS.keys() and all(entry.default_model for entry in services.values())
    provider = open_provider(EvalSettings(provider="deepgram", api_key=KEY))
    assert provider.decoding["model"] == "nova-3" and provider.decoding["base_url"] == "https://api.deepgram.com"


# ---- keys


def test_no_key_is_one_line_that_names_the_variable(name: str) -> None:
    with pytest.raises(TinyAudioError, match=VARIABLES[name]):
        open_provider(EvalSettings(provider=name, base_url="http://127.0.0.1:9" if name == "endpoint" else None))


def test_the_variable_holds_the_key(server: Server, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLES[settings_for(server).provider], f" {KEY}\n")
    (heard,) = open_provider(settings_for(server, api_key=None)).transcribe(clips(2))
    assert heard.text == HEARD[SAMPLES[2]]


def test_a_server_of_ones_own_needs_no_key(openai: Server) -> None:
    openai.dialect.answer = lambda request: {"text": str(request.headers["authorization"])}
    (heard,) = open_provider(settings_for(openai, api_key=None)).transcribe(clips(0))
    assert heard.text == "None"


def test_a_wrong_key_is_one_line_without_it(server: Server, corpus: Path, tmp_path: Path, capsys) -> None:
    assert run(command(server, corpus, tmp_path / "out", "--api-key", "sk-wrong-secret")) == 1
    shown = capsys.readouterr()
    error = shown.err.strip().splitlines()[-1]
    assert error.startswith("Error: ") and "HTTP 401" in error and VARIABLES[settings_for(server).provider] in error
    assert "sk-wrong-secret" not in shown.out + shown.err and "***" in error
    assert len(server.times) < CLIPS / 2  # nobody asked on


def test_a_key_that_is_none() -> None:
    with pytest.raises(TinyAudioError, match="one word of ASCII") as error:
        open_provider(EvalSettings(provider="deepgram", api_key="clé secrète"))
    assert "secr" not in str(error.value)


# ---- faults, through the whole command


def test_faults_cost_clips_never_words(server: Server, corpus: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLES[settings_for(server).provider], KEY)
    server.break_a_share(0.3, seed=4)
    arguments = command(server, corpus, tmp_path, "--retries", "0", "-w", "8")
    assert run(arguments) == 1
    results = read_results(tmp_path)
    failed = {result.id for result in results if result.failed}
    assert len(results) == CLIPS and 0 < len(failed) < CLIPS
    assert all(result.prediction == HEARD[int(result.id)] for result in results if not result.failed)
    assert all(result.prediction is None and result.wer is None for result in results if result.failed)
    metrics = Metrics.read(tmp_path)
    assert (metrics.num_samples, metrics.num_failed, metrics.wer) == (CLIPS, len(failed), 0.0)

    server.dialect.asked.clear()
    assert run([*arguments, "--allow-failures"]) == 0
    assert {str(samples) for samples in server.dialect.asked} <= failed
    server.fault = lambda: None
    assert run(arguments) == 0
    assert Metrics.read(tmp_path).num_failed == 0
    shown = capsys.readouterr()
    assert KEY not in shown.out + shown.err and "\x1b" not in shown.out + shown.err
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) >= 4 and not any(KEY.encode() in data for data in written)


def test_with_enough_retries_all_is_heard(server: Server, corpus: Path, tmp_path: Path, capsys) -> None:
    server.break_a_share(0.3, seed=5)
    assert run(command(server, corpus, tmp_path, "--retries", "9", "-w", "8", "--api-key", KEY)) == 0
    metrics = Metrics.read(tmp_path)
    assert (metrics.num_failed, metrics.wer, metrics.provider) == (0, 0.0, settings_for(server).provider)
    assert metrics.latency["p50"] > 0
    assert capsys.readouterr().err.count("asking again") == 1


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 16), (3, 16), (6, 2)])
def test_as_many_requests_at_a_time_as_workers(openai, corpus: Path, tmp_path: Path, workers, batch_size) -> None:
    openai.delay = 0.05
    options = ["-w", str(workers), "--batch-size", str(batch_size), "--api-key", KEY, "--timeout", "5"]
    assert run(command(openai, corpus, tmp_path, *options)) == 0
    assert workers / 2 < openai.most_active <= workers
    assert json.loads((tmp_path / "settings.json").read_text())["batch_size"] == batch_size


def test_the_server_says_when_to_come_back(openai: Server, monkeypatch) -> None:
    monkeypatch.setattr(retries, "LONGEST_WAIT_SECONDS", 0.3)
    provider = open_provider(settings_for(openai))
    waits = []
    for header in ("0.2", "3600", "Wed, 21 Oct 2099 07:28:00 GMT"):
        openai.times.clear()
        openai.break_first(f"429 {header}")
        (heard,) = provider.transcribe(clips(1))
        assert heard.text == HEARD[SAMPLES[1]]
        waits.append(openai.times[1] - openai.times[0])
    assert 0.2 <= waits[0] < 0.3 <= min(waits[1:]) and max(waits) < 1.5


def test_an_endpoint_that_starts_up_is_waited_for() -> None:
    with serving("endpoint", HEARD) as server:
        server.break_first("503", "503", "503")
        (heard,) = open_provider(settings_for(server)).transcribe(clips(1))
        assert heard.text == HEARD[SAMPLES[1]] and len(server.times) == 4


def test_a_server_that_drips_is_not_waited_for(openai: Server) -> None:
    openai.fault = lambda: "drip"
    started = time.perf_counter()
    (heard,) = open_provider(settings_for(openai, retries=1)).transcribe(clips(1))
    assert heard.error == f"no whole answer within {TIMEOUT:g} s (2 tries)"
    assert 2 * TIMEOUT <= time.perf_counter() - started < 2 * TIMEOUT + 1


@pytest.mark.parametrize("answer", [{"text": None}, {"text": ["zero"]}, {"text": {}}, [], 5, None, "zero"])
def test_what_is_no_text_is_never_taken_for_one(openai: Server, answer) -> None:
    openai.dialect.answer = lambda request: json.dumps(answer)
    (heard,) = open_provider(settings_for(openai, retries=1)).transcribe(clips(1))
    assert heard.error.startswith("a broken answer") and len(openai.times) == 2


@pytest.mark.parametrize("start", ["NaN", "1e999", '"0.5"', "null"])
def test_what_is_no_time_is_never_taken_for_one(openai: Server, start: str) -> None:
    openai.dialect.answer = lambda request: f'{{"text": "a", "words": [{{"word": "a", "start": {start}, "end": 1}}]}}'
    (heard,) = open_provider(settings_for(openai, retries=0, word_times=True)).transcribe(clips(1))
    assert heard.error.startswith("a broken answer")


def test_nobody_listens() -> None:
    settings = EvalSettings(provider="openai", base_url="http://127.0.0.1:9", retries=1, timeout=2)
    (heard,) = open_provider(settings).transcribe(clips(1))
    assert heard.error.startswith("ConnectError") and heard.error.endswith("(2 tries)")


def test_a_transcript_that_failed_is_the_clips_own_error() -> None:
    with serving("assemblyai", {SAMPLES[0]: "not to be done", SAMPLES[1]: "fine"}) as server:
        bad, good = open_provider(settings_for(server)).transcribe(clips(0, 1))
        assert bad.error == "the transcript failed: Audio file is corrupt." and good.text == "fine"
        assert server.dialect.polled["order-0"] == server.dialect.polled["order-1"] == 2


@pytest.mark.parametrize(
    ("status", "body", "ends"),
    [
        (404, {"detail": "Not Found"}, True),
        (403, {"err_code": "FORBIDDEN", "err_msg": "Project may not use the requested model."}, True),
        (402, {"err_msg": "Not enough credit"}, True),
        (307, "", True),
        (400, {"error": {"message": "response_format is not compatible with model 'some-model'"}}, True),
        (400, {"err_msg": "No such model/language/tier combination found."}, True),
        (400, {"error": {"message": "audio of 1500 s is longer than 1400 s, the maximum for this model"}}, False),
        (400, {"err_msg": "Bad Request: failed to process audio: corrupt or unsupported data"}, False),
        (413, {"detail": [{"loc": ["body", "file"], "msg": "too large"}]}, False),
    ],
)
def test_what_ends_the_run_and_what_costs_a_clip(openai: Server, status: int, body, ends: bool) -> None:
    def refuse(request):
        raise Refused(status, body)

    openai.dialect.answer = refuse
    provider = open_provider(settings_for(openai))
    if ends:
        with pytest.raises(TinyAudioError, match=f"HTTP {status}") as error:
            provider.transcribe(clips(1, 2))
        assert "\n" not in str(error.value)
    else:
        heard = provider.transcribe(clips(1, 2))
        assert all(h.error.startswith(f"HTTP {status}: ") for h in heard) and len(openai.times) == 2


def test_ctrl_c_waits_for_no_request(openai: Server, corpus: Path, tmp_path: Path) -> None:
    openai.delay = 120.0
    arguments = command(openai, corpus, tmp_path, "--timeout", "120", "--api-key", KEY)
    process = subprocess.Popen(
        [sys.executable, "-m", "tiny_audio.cli.main", *arguments], stderr=subprocess.PIPE, text=True
    )
    while len(openai.times) < 4 and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    started = time.perf_counter()
    _, shown = process.communicate(timeout=60)
    assert time.perf_counter() - started < 50
    assert process.returncode == 130 and "Interrupted." in shown and "Traceback" not in shown


# ---- settings and prices


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "endpoint", "api_key": KEY}, "--base-url"),
        ({"provider": "deepgram", "api_key": KEY, "first_token": True}, "leave out --first-token"),
        ({"provider": "endpoint", "base_url": "http://x", "word_times": True}, "leave out --word-times"),
        ({"base_url": "https://me:hidden@example.com"}, "plain address"),
        ({"base_url": "https://example.com/v1?key=hidden"}, "plain address"),
        ({"base_url": "localhost:8000"}, "plain address"),
        ({"timeout": 0}, "timeout is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"price_per_minute": float("nan")}, "price_per_minute is nan"),
        ({"word_times": True, "first_token": True}, "not both"),
    ],
)
def test_wrong_settings_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(TinyAudioError, match=message) as error:
        open_provider(EvalSettings(**options))
    assert "hidden" not in str(error.value)


def test_a_key_goes_to_one_service(capsys) -> None:
    assert run(["eval", "--providers", "openai,deepgram", "--api-key", KEY]) == 1
    shown = capsys.readouterr().err
    assert "belongs to one service" in shown and KEY not in shown


def test_prices(tmp_path: Path) -> None:
    file = tmp_path / "config" / "tiny-audio" / "prices.toml"
    deepgram = EvalSettings(provider="deepgram")
    assert priced(deepgram).price_per_minute is None
    file.parent.mkdir(parents=True)
    file.write_text('[usd_per_minute]\ndeepgram = 0.5\n"openai/a" = 2\nelevenlabs = "much"\nassemblyai = -1\n')
    assert priced(deepgram).price_per_minute == 0.5
    assert priced(EvalSettings(provider="deepgram", price_per_minute=0)).price_per_minute == 0
    assert priced(EvalSettings(provider="openai", model="a")).price_per_minute == 2
    assert priced(EvalSettings(provider="openai", model="b")).price_per_minute is None
    for wrong in ("elevenlabs", "assemblyai"):
        with pytest.raises(TinyAudioError):
            priced(EvalSettings(provider=wrong))
    file.write_text("usd_per_minute = 3")
    with pytest.raises(TinyAudioError, match="no table"):
        priced(deepgram)


def test_the_cost_is_shown(openai: Server, corpus: Path, tmp_path: Path) -> None:
    assert run(command(openai, corpus, tmp_path, "--api-key", KEY, "--price-per-minute", "0.6")) == 0
    metrics = Metrics.read(tmp_path)
    assert metrics.cost_usd == pytest.approx(sum(SAMPLES) / 16_000 / 60 * 0.6, abs=1e-4)
    assert f"{metrics.cost_usd:.4f}" in (tmp_path / "results.txt").read_text()


# ---- the local provider's side of the same options


def test_nano_times_its_words_and_its_first_piece(nano: Path) -> None:
    clip = load_audio(embedded("clips") / "send-a-message-to-jack.ogg")
    plain = open_provider(EvalSettings(device="cpu")).transcribe([clip])[0]
    timed = open_provider(EvalSettings(device="cpu", word_times=True)).transcribe([clip])[0]
    streamed = open_provider(EvalSettings(device="cpu", first_token=True)).transcribe([clip])[0]
    assert plain.text == timed.text == streamed.text == "send a message to jack" and plain.words is None
    assert [word.text for word in timed.words] == timed.text.split()
    assert 0 < streamed.first_token <= streamed.latency


def test_word_times_without_a_head_are_one_line(tiny_checkpoint: Path) -> None:
    with pytest.raises(TinyAudioError, match="no CTC head"):
        open_provider(EvalSettings(model=str(tiny_checkpoint), device="cpu", word_times=True))


@pytest.mark.parametrize("before", range(LONGEST_MESSAGE - len(KEY) - 1, LONGEST_MESSAGE + 1))
def test_no_part_of_a_key_is_left_where_a_message_is_cut(before: int) -> None:
    provider = open_provider(EvalSettings(provider="deepgram", api_key=KEY))
    line = provider._without_key("x" * before + KEY + "\x1b[31m")
    assert set(line) <= set("x*[31m ") and len(line) <= LONGEST_MESSAGE
