"""How a model was trained, for its card: data with hours, settings, machines, time, cost and estimated CO₂."""

from collections.abc import Sequence
from dataclasses import replace

from tiny_audio.console import markdown
from tiny_audio.hub.card.facts import Facts, Stage, hours
from tiny_audio.model_source import public_name
from tiny_audio.training.cost import amount, duration
from tiny_audio.training.record import Dataset, Record, Session
from tiny_audio.training.schema import Settings

Rows = list[tuple[str, str]]


def training(facts: Facts) -> str:
    """The section; of a chain of stages, all of them."""
    if not facts.stages:
        return ""
    parts = ["## Training", *_stages(facts), "### Data", _data(facts.datasets), *_left_out(facts)]
    if facts.run is not None and facts.run.settings is not None:
        parts += ["### Settings", *_of_the_last(facts), _table(_settings(facts.run.settings))]
    if facts.records:
        parts += ["### Time, cost, CO₂", *_unrecorded(facts), _table(_resources(facts))]
    return "\n\n".join(parts)


def _stages(facts: Facts) -> list[str]:
    """The chain, where there is one: what each began with, what it trained, and how long."""
    if len(facts.stages) == 1 and facts.started_from is None:
        return []
    before = [facts.started_from, *(stage.folder.name for stage in facts.stages)]
    rows = [
        (stage.folder.name, _linked(begun), ", ".join(_trained(stage)), *_took(stage.record))
        for stage, begun in zip(facts.stages, before, strict=False)
    ]
    heads = ("stage", "began with", "trained", "steps", "GPU hours")
    return ["It was trained in stages, each of which went on from the one before.", markdown(heads, rows, heads[3:])]


def _linked(name: str | None) -> str:
    if name is None:
        return "pretrained parts"
    return f"[{name}](https://huggingface.co/{name.partition('@')[0]})" if "/" in name else name


def _trained(stage: Stage) -> list[str]:
    sizes = stage.record.parameters if stage.record else {}
    return [f"{name.replace('_', ' ')} ({size['trained']:,})" for name, size in sizes.items() if size["trained"]]


def _took(record: Record | None) -> tuple[str, str]:
    return ("", "") if record is None else (f"{record.steps:,}", f"{record.gpu_hours:.1f}")


def _data(datasets: Sequence[Dataset]) -> str:
    heads = ("dataset", "configuration", "split", "revision", "clips", "hours", "clips drawn")
    rows = [
        (
            f"[{d.path}](https://huggingface.co/datasets/{d.path})" if d.on_hub else public_name(d.name),
            d.config or "", d.split, (d.revision or "")[:10], _count(d.clips), hours(d),
            _count(d.used),
        )
        for d in datasets
    ]  # fmt: skip
    streamed = any(dataset.clips is None for dataset in datasets)
    note = ["What was streamed was not counted beforehand."] if streamed else []
    return "\n\n".join([markdown(heads, rows, heads[4:]), *note])


def _left_out(facts: Facts) -> list[str]:
    skipped = facts.run.record.skipped if facts.run and facts.run.record else {}
    said = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items())
    return [f"Clips left out of the last training: {said}."] if said else []


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _of_the_last(facts: Facts) -> list[str]:
    return ["Of the last stage:"] if len(facts.stages) > 1 else []


def _settings(settings: Settings) -> Rows:
    """Those that a reader compares; all of them are in the command further down."""
    model, training = settings.model, settings.training
    spread = training.gradient_accumulation_steps * settings.processes
    masks = f"{training.time_masks} in time, {training.frequency_masks} in frequency"
    rows: list[tuple[str, str | None]] = [
        ("optimizer", f"AdamW, weight decay {training.weight_decay:g}, gradients cut at {training.max_grad_norm:g}"),
        (
            "learning rate",
            f"{training.learning_rate:g}, {training.lr_scheduler}, {training.warmup_steps} steps of warm-up",
        ),
        ("of the language model", _rate(training.language_model_learning_rate)),
        ("of the encoder", _rate(training.encoder_learning_rate)),
        ("batch", f"{training.batch_seconds:g} s of audio" + (f", {spread} of them a step" if spread > 1 else "")),
        ("precision", training.dtype),
        ("LoRA on the language model", f"rank {model.lora_rank}, alpha {model.lora_alpha}" if model.use_lora else None),
        ("LoRA on the encoder", _rank(model.encoder_lora_rank, model.encoder_lora_alpha)),
        ("SpecAugment", masks if training.time_masks + training.frequency_masks else None),
        ("augmented waveforms", "yes" if training.augment.active else None),
        ("label smoothing", _rate(training.label_smoothing or None)),
        ("distillation", _rate(training.distillation_weight or None)),
        ("seed", str(training.seed)),
    ]
    return [(name, value) for name, value in rows if value is not None]


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _rank(rank: int, alpha: int) -> str | None:
    return f"rank {rank}, alpha {alpha}" if rank else None


def _unrecorded(facts: Facts) -> list[str]:
    missing = [stage.folder.name for stage in facts.stages if stage.record is None]
    return [f"Without {', '.join(missing)}, of which nothing is recorded."] if missing else []


def _resources(facts: Facts) -> Rows:
    """What all recorded stages took together."""
    last = facts.records[-1]
    every = replace(last, sessions=[session for record in facts.records for session in record.sessions])
    passes = "" if last.epochs is None else f", {last.epochs:.1f} passes over the data"
    rows = [
        (
            "dates",
            " to ".join(dict.fromkeys(session.began[:10] for session in (every.sessions[0], every.sessions[-1]))),
        ),
        ("hardware", "; ".join(dict.fromkeys(map(_machine, every.sessions)))),
        ("time", f"{duration(every.seconds)} by the clock, with loading and validation{_sittings(every)}"),
        ("steps", f"{sum(record.steps for record in facts.records):,}{passes if len(facts.records) == 1 else ''}"),
        ("audio heard", f"{every.audio_hours:,.2f} h"),
        ("computation", f"{amount(every.flops)} of training steps"),
        *_cost(every),
    ]
    if last.best_wer is not None:
        rows.append(("validation WER", f"{100 * last.best_wer:.1f} %, on the sample that chose the checkpoint"))
    return rows


def _sittings(record: Record) -> str:
    return f", in {len(record.sessions)} sittings" if len(record.sessions) > 1 else ""


def _machine(session: Session) -> str:
    if "gpu" in session.hardware:
        return f"{session.processes} × {session.hardware['gpu']}"
    return (
        f"{session.hardware['device'].upper()}, {session.hardware['cpu_cores']} cores ({session.hardware['platform']})"
    )


def _cost(record: Record) -> Rows:
    """GPU hours, and where the GPU's price and power are known, dollars, kWh and kg of CO₂."""
    rows: Rows = [("GPU hours", f"{record.gpu_hours:.2f}")] if record.gpu_hours else []
    if record.gpu_hours and record.dollars is not None:
        rows.append(("cost", f"${record.dollars:,.2f} (prices of {record.prices.split(';')[0]})"))
    if record.gpu_hours and record.kilowatt_hours is not None and record.kg_co2 is not None:
        rows.append(("energy", f"{record.kilowatt_hours:,.2f} kWh of the GPUs, at the power of their data sheets"))
        rows.append(("CO₂", f"about {record.kg_co2:,.2f} kg at {record.carbon:g} kg a kWh ({record.carbon_from})"))
    if not record.gpu_hours:
        rows.append(("cost, CO₂", "not estimated: it was trained without a GPU whose power is known"))
    return rows


def _table(rows: Rows) -> str:
    return markdown(("", ""), rows)
