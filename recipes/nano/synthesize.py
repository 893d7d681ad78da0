"""Speech for the sentences: espeak-ng and flite voices, rooms and noise, written as shards of raw log-mel.

python -m recipes.nano.synthesize --work-dir build/nano --train 28000 --listening 14000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import gcd
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from recipes.nano.features import SAMPLING_RATE, degrade, raw_log_mel
from recipes.nano.sentences import Rule, draw, mixed_words, sentences

ACCENTS = ["en-us", "en-us", "en-us", "en-gb", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan",
           "en-gb-x-gbcwmd", "en-029", "en-us-nyc"]  # fmt: skip
TEST_VARIANTS = "Mario Michael Mike david grandpa gustave john kaukovalta linda max pedro quincy".split()
VALIDATION_VARIANTS = "f3 m6 m8 marcelo michel sandro".split()
TRAIN_VARIANTS = (
    "Alex Alicia Andrea Andy Annie AnxiousAndy Demonic Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco "
    "Nguyen RicishayMax RicishayMax2 RicishayMax3 Storm Tweaky UniRobot adam anika anikaRobot announcer antonio "
    "aunty belinda benjamin boris caleb croak ed edward edward2 f1 f2 f4 f5 grandma iven iven2 iven3 iven4 klatt "
    "klatt2 klatt3 klatt4 klatt5 klatt6 m1 m2 m3 m4 m5 m7 miguel norbert pablo paul rob robert robosoft robosoft2 "
    "robosoft3 robosoft4 robosoft5 robosoft6 robosoft7 robosoft8 shelby steph steph2 steph3 travis victor whisper "
    "whisperf zac"
).split()
FLITE_VOICES = {"train": ["kal", "kal16", "awb", "slt", "slt", "awb"], "validation": [], "test": ["rms"]}
FLITE_SHARE, LISTENING_FLITE_SHARE = 0.2, 0.5  # flite's voices are the more human ones
FLITE_PITCH_HZ = {"kal": 100, "kal16": 100, "awb": 120, "slt": 175, "rms": 95}
SHARD_UTTERANCES = 250


@dataclass(frozen=True)
class Voice:
    """One way of speaking: an engine's voice with its settings."""

    engine: str
    accent: str  # of espeak-ng; empty for flite
    name: str
    pitch: float  # espeak-ng: 0 to 99; flite: Hz
    rate: float  # espeak-ng: words a minute; flite: duration stretch
    gap: int = 0  # espeak-ng: pause between words in 10 ms

    @property
    def speaker(self) -> str:
        """The name under which a corpus lists this voice."""
        return f"{self.engine}:{self.name}"


def draw_voice(rng: random.Random, split: str, flite_share: float = FLITE_SHARE) -> Voice:
    """A voice of the split with random accent, pitch and rate."""
    flite = FLITE_VOICES[split]
    if flite and rng.random() < flite_share:
        name = rng.choice(flite)
        return Voice("flite", "", name, FLITE_PITCH_HZ[name] * rng.uniform(0.75, 1.35), rng.uniform(0.75, 1.4))
    names = {"train": TRAIN_VARIANTS, "validation": VALIDATION_VARIANTS, "test": TEST_VARIANTS}[split]
    gap = rng.choice([0, 0, 0, rng.randint(1, 12)])
    return Voice("espeak", rng.choice(ACCENTS), rng.choice(names), rng.randint(15, 85), rng.randint(115, 230), gap)


def _command(voice: Voice, text: str) -> list[str]:
    """The command line that writes a WAV to standard output."""
    padded = f"{text} "
    if voice.engine == "flite":
        spoken = padded.replace(" a m ", " A M ").strip()
        features = ["--setf", f"duration_stretch={voice.rate:.3f}", "--setf", f"int_f0_target_mean={voice.pitch:.1f}"]
        return ["flite", "-voice", voice.name, *features, "-t", spoken, "-o", "/dev/stdout"]
    spoken = padded.replace(" a m ", " a.m. ").strip()
    settings = ["-p", str(int(voice.pitch)), "-s", str(int(voice.rate)), "-g", str(voice.gap)]
    return ["espeak-ng", "-z", "-v", f"{voice.accent}+{voice.name}", *settings, "--stdout", spoken]


def speak(voice: Voice, text: str) -> np.ndarray:
    """(samples,) at 16 kHz, float32, as the engine says the text.

    Raises:
        OSError: the engine is not installed or said nothing.
    """
    wav = subprocess.run(_command(voice, text), capture_output=True, check=False).stdout
    rate = int.from_bytes(wav[24:28], "little")
    samples = np.frombuffer(wav[44 : 44 + (len(wav) - 44) // 2 * 2], "<i2").astype(np.float32) / 32768
    if rate == 0 or len(samples) < rate // 20:
        raise OSError(f"{voice.engine} said nothing for {text!r} with {voice}.")
    if rate == SAMPLING_RATE:
        return samples
    common = gcd(SAMPLING_RATE, rate)
    return resample_poly(samples, SAMPLING_RATE // common, rate // common).astype(np.float32)


@dataclass(frozen=True)
class Job:
    """One utterance to be made: its text, its voice and its seed."""

    text: str
    voice: Voice
    seed: int


def plan(split: str, seed: int, rule: Rule = draw, flite_share: float = FLITE_SHARE) -> Iterator[Job]:
    """Endless utterances of a split: a fresh sentence and voice each, the same for the same seed."""
    rng = random.Random(f"voices/{split}/{seed}")
    for sentence in sentences(split, seed, rule):
        yield Job(sentence, draw_voice(rng, split, flite_share), rng.randrange(2**31))


def listening(rng: random.Random) -> str:
    """Mostly words in no order, which nobody can guess."""
    return mixed_words(rng) if rng.random() < 0.7 else draw(rng)


def render(job: Job) -> np.ndarray:
    """(samples,) at 16 kHz: the utterance, often in a room and with noise."""
    rng = np.random.default_rng(job.seed)
    return degrade(rng, speak(job.voice, job.text), room=0.4, noise=0.5, snr_db=(5.0, 30.0))


def write_shard(folder: Path, index: int, clips: list[np.ndarray], rows: list[dict]) -> None:
    """Log-mel of clips as one float16 array, and a row for each; the rows come last, so a shard with rows is whole."""
    mels = [raw_log_mel(clip).astype(np.float16) for clip in clips]
    np.save(folder / f"{index:05d}.npy", np.concatenate(mels))
    for row, mel in zip(rows, mels, strict=True):
        row["frames"] = len(mel)
    partial = folder / f"{index:05d}.tmp"
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    partial.rename(folder / f"{index:05d}.jsonl")


def _render_shard(task: tuple[Path, int, list[Job]]) -> int:
    folder, index, jobs = task
    clips, rows = [], []
    for job in jobs:
        try:
            clips.append(render(job))
        except OSError as error:
            print(f"left out: {error}", flush=True)
            continue
        rows.append({"text": job.text, "speaker": job.voice.speaker, "voice": asdict(job.voice)})
    write_shard(folder, index, clips, rows)
    return len(clips)


def synthesize(folder: Path, utterances: Iterator[Job], count: int, processes: int = 2) -> None:
    """Renders the first `count` utterances into shards; shards already whole are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = []
    for index, start in enumerate(range(0, count, SHARD_UTTERANCES)):
        jobs = [next(utterances) for _ in range(min(SHARD_UTTERANCES, count - start))]
        if not (folder / f"{index:05d}.jsonl").exists():
            tasks.append((folder, index, jobs))
    with Pool(processes) as pool:
        done = 0
        for made in pool.imap_unordered(_render_shard, tasks):
            done += made
            print(f"{folder.name}: {done} utterances", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("build/nano"))
    parser.add_argument("--train", type=int, default=28_000, help="utterances of the training split")
    parser.add_argument("--listening", type=int, default=14_000, help="more of them, mostly words in no order")
    parser.add_argument("--validation", type=int, default=400, help="utterances of the validation split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    more = plan("train", options.seed + 2, listening, LISTENING_FLITE_SHARE)
    for name, utterances, count in (
        ("validation", plan("validation", options.seed), options.validation),
        ("train", plan("train", options.seed), options.train),
        ("listening", more, options.listening),
    ):
        synthesize(options.work_dir / name, utterances, count, options.processes)


if __name__ == "__main__":
    main()
