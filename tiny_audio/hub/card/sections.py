"""The sections of a card, in their order: each is what the facts say, and empty where they say nothing."""

import re
from collections.abc import Callable
from datetime import datetime

from tiny_audio.analysis.leaderboard import device_of
from tiny_audio.analysis.output import counted, interval, percent
from tiny_audio.analysis.runs import open_run
from tiny_audio.analysis.slices import Slice, slices_of
from tiny_audio.console import markdown, printable
from tiny_audio.evaluation.results import Metrics
from tiny_audio.hub.card.facts import Facts, hours
from tiny_audio.hub.card.reproduce import reproduce
from tiny_audio.hub.card.training import training
from tiny_audio.hub.card.usage import usage
from tiny_audio.model_source import public_name

WORST_SLICES = 3  # of each evaluation
PARTS = {"encoder": "encoder", "projector": "projector", "language_model": "language model", "ctc_head": "CTC head"}
DIAGRAM = "    waveform 16 kHz ─ encoder ─ frames ─ projector ─ language model's embeddings ─ language model ─ text"
WER_COLUMNS = ("dataset", "configuration", "split", "clips", "WER %", "95 %", "CER %", "normaliser", "RTFx", "on")


def about(facts: Facts) -> str:
    """What it is and how well it does, in a paragraph."""
    projector = next(part for part in facts.parts if part.name == "projector")
    parts = (
        f"{facts.name} turns speech into text. An audio encoder ({_source(facts, 'encoder')}) hears it, a projector of "
        f"{projector.total / 1e6:.1f} M parameters turns what was heard into what a language model reads, and the language "
        f"model ({_source(facts, 'language_model')}) writes it down."
    )
    sentences = [parts]
    if facts.datasets:
        named = [f"{public_name(each.name)}{f' ({hours(each)})' * bool(hours(each))}" for each in facts.datasets]
        sentences.append(f"It was trained on {', '.join(named)}.")
    sentences += [_measured(metrics) for metrics in facts.evaluations[-1:]]
    sentences.append("Made with tiny-audio.")
    return " ".join(sentences)


def _measured(metrics: Metrics) -> str:
    return (
        f"On {public_name(metrics.dataset_name)}, split {metrics.dataset['split']}, its word error rate is "
        f"{percent(metrics.wer)} (95 %: {interval(metrics.wer_interval)}; {metrics.num_samples:,} clips)."
    )


def architecture(facts: Facts) -> str:
    """Parameters by part, and how the parts are joined."""
    trained = {part.name: part.trainable for part in facts.parts}
    if facts.run is not None and facts.run.record is not None:
        trained |= {name: size["trained"] for name, size in facts.run.record.parameters.items()}
    rows = [(PARTS[p.name], _source(facts, p.name), f"{p.total:,}", f"{trained[p.name]:,}") for p in facts.parts]
    rows.append(("all", "", f"{sum(part.total for part in facts.parts):,}", f"{sum(trained.values()):,}"))
    heads = ("part", "what", "parameters", "trained" + " last" * (len(facts.stages) > 1))
    seconds = facts.window_seconds
    hears = "takes audio of any length" if seconds is None else f"hears {seconds:g} s at once"
    explained = (
        f"Frames are {facts.config.encoder_dim} wide, embeddings {facts.config.llm_dim}. The encoder {hears}. "
        f"Decoding: {_decoding(facts)}, at most {facts.config.max_new_tokens} tokens a window."
    )
    return "\n\n".join(["## Architecture", DIAGRAM, markdown(heads, rows, heads[2:]), explained])


def _decoding(facts: Facts) -> str:
    beams = facts.config.num_beams
    return "sampled" if facts.config.do_sample else "greedy" if beams == 1 else f"{beams} beams"


def _source(facts: Facts, part: str) -> str:
    """Where a part comes from, or of what kind it is."""
    config = facts.config
    if part in ("encoder", "language_model"):
        pairs = {
            "encoder": (config.audio_model_id, config.audio_config),
            "language_model": (config.text_model_id, config.text_config),
        }
        name, own = pairs[part]
        return public_name(name) if name else f"of the kind {getattr(own, 'model_type', 'unknown')}"
    if part == "ctc_head":
        return f"{len(config.ctc_vocabulary or ())} characters, for the times of words"
    kind = config.projector_type + (f", {config.projector_variant}" if config.projector_type == "mlp" else "")
    stacked = config.downsample_rate if config.projector_type == "qformer" else config.projector_pool_stride
    return f"`{kind}`, {stacked} frames a token"


def evaluation(facts: Facts) -> str:
    """Every figure with its interval, its normaliser and its clips."""
    if not facts.evaluations:
        return ""
    explained = (
        "Measured by `ta eval`, on the weights of this repository. The interval is a bootstrap's over clips; RTFx is seconds of "
        "audio that are transcribed in a second. Rates of different normalisers do not compare."
    )
    rows = [*map(_wer_row, facts.evaluations)]
    return "\n\n".join(["## Evaluation", explained, markdown(WER_COLUMNS, rows, ("clips", "WER %", "CER %", "RTFx"))])


def _wer_row(metrics: Metrics) -> tuple[str, ...]:
    dataset = [public_name(metrics.dataset_name), metrics.dataset["config"] or "", metrics.dataset["split"] or ""]
    clips = f"{metrics.num_samples:,}{' drawn' * bool(metrics.dataset['max_samples'])}"
    rates = f"{100 * metrics.wer:.2f}", interval(metrics.wer_interval), f"{100 * metrics.cer:.2f}"
    normalizer = f"{metrics.normalizer['name']} {metrics.normalizer['version']}"
    return *dataset, clips, *rates, normalizer, f"{metrics.rtfx:.1f}", device_of(metrics)


def limitations(facts: Facts) -> str:
    """What is known not to work, and what nobody knows."""
    seconds, lines = facts.window_seconds, []
    if facts.languages:
        lines.append(
            f"Languages of the speech that it was trained on: {', '.join(facts.languages)}. No other was tried."
        )
    if facts.stages:
        lines.append("It writes lower case without punctuation, as the labels that it was trained on.")
    if seconds is not None:
        lines.append(f"Audio over {seconds:g} s is cut where it is quiet, and each piece is recognised by itself.")
    if not facts.config.ctc_vocabulary:
        lines.append("It has no CTC head, so it cannot say when a word was said.")
    lines += [line for metrics in facts.evaluations for line in _weaknesses(metrics)]
    if not facts.evaluations:
        lines.append("How well it does has not been measured.")
    return "\n".join(["## Limitations", "", *(f"- {line}" for line in lines)])


def _weaknesses(metrics: Metrics) -> list[str]:
    """The slices that are surely worse than the whole, clips that failed, and words on clips in which nobody speaks."""
    name, lines = public_name(metrics.dataset_name), []
    worse = [s for s in _slices(metrics) if s.wer_interval and s.wer_interval[0] > metrics.wer]
    for piece in sorted(worse, key=lambda s: -s.wer)[:WORST_SLICES]:
        lines.append(
            f"Worse than the {percent(metrics.wer)} of {name} ({metrics.normalizer['name']}): {piece.kind} "
            f"{printable(piece.label)}, {percent(piece.wer)} on {counted(piece.clips, 'clip')}."
        )
    if metrics.num_failed:
        lines.append(
            f"Of {name}, {counted(metrics.num_failed, 'clip')} of {metrics.num_samples:,} failed and are not scored."
        )
    empty = metrics.empty_references
    if empty.get("insertions"):
        lines.append(
            f"On {counted(empty['clips'], 'clip')} of {name} without speech it wrote {empty['insertions']} words."
        )
    return lines


def _slices(metrics: Metrics) -> list[Slice]:
    """By what the data say; speakers are left out, whose names are not the card's to tell."""
    return [piece for piece in slices_of(open_run(str(metrics.folder))) if piece.kind != "speaker"]


def citation(facts: Facts) -> str:
    """BibTeX, with the repository and the year of the training."""
    owner, _, name = facts.repository.rpartition("/")
    date = facts.records[-1].sessions[-1].began if facts.records else datetime.now().isoformat()
    key = re.sub(r"\W", "", name).lower() + date[:4]
    lines = [f"  title = {{{name}}},", *([f"  author = {{{owner}}},"] if owner else []), f"  year = {{{date[:4]}}},"]
    url = f"  howpublished = {{\\url{{https://huggingface.co/{facts.repository}}}}},"
    note = "  note = {Made with tiny-audio}"
    return "\n".join(["## Citation", "", "```bibtex", f"@misc{{{key},", *lines, url, note, "}", "```"])


def versions(facts: Facts) -> str:
    """Of the libraries, as of the last session of the training."""
    if not facts.records:
        return ""
    used = facts.records[-1].sessions[-1].versions
    return "## Framework versions\n\n" + ", ".join(f"{name} {version}" for name, version in used.items())


def open_questions(facts: Facts) -> str:
    """What only the owner can say or do; gone when all is said."""
    lines = []
    if not facts.given.get("license"):
        lines.append(
            "**Licence**: which one? Those of the encoder, the language model and the data bind you. Write `license: …` into "
            "the metadata at the top, for instance `apache-2.0` or `mit` where all of them allow it."
        )
    if not (facts.languages or facts.given.get("language")):
        lines.append("**Language**: which one does it understand? Write `language: …` into the metadata, as `en`.")
    if not facts.records:
        lines.append(
            "**Training**: there is no `run.json` beside the checkpoint, so time, cost and hardware are not known."
        )
    if not facts.evaluations:
        lines.append("**Evaluation**: run `ta eval` on the checkpoint's folder, then push again.")
    if others := _figures_of_others(facts):
        lines.append(
            f"**Figures** of {', '.join(others)} stand in the metadata and are not of this push: are they still true?"
        )
    return "\n".join(["## Still to be said", "", *(f"- {line}" for line in lines)]) if lines else ""


def _figures_of_others(facts: Facts) -> list[str]:
    """Datasets of `model-index` that no evaluation of these weights is on."""
    results = [result for model in facts.given.get("model-index") or [] for result in model.get("results") or []]
    named = [result.get("dataset", {}).get("name") for result in results]
    ours = {public_name(metrics.dataset_name) for metrics in facts.evaluations}
    return list(dict.fromkeys(str(name) for name in named if name not in ours))


SECTIONS: dict[str, Callable[[Facts], str]] = {
    "about": about,
    "open-questions": open_questions,
    "usage": usage,
    "evaluation": evaluation,
    "limitations": limitations,
    "architecture": architecture,
    "training": training,
    "reproduce": reproduce,
    "versions": versions,
    "citation": citation,
}
