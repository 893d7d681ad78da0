"""`ta eval`: word error rate and speed of a model on a dataset."""

from pathlib import Path
from typing import Annotated

import typer

from tiny_audio.cli.options import BeamsOption, DeviceOption, DtypeOption, ModelOption, NewTokensOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)

DatasetsOption = Annotated[
    list[str] | None,
    typer.Option("--dataset", "-d", help="Shipped corpus, local path, or Hub id; may be repeated. [quickstart]"),
]
SampleOption = Annotated[
    int | None, typer.Option("--max-samples", "-n", min=1, help="Clips, drawn at random with a seed. [all]")
]
NormalizerOption = Annotated[
    str | None,
    typer.Option(help="whisper-en, basic or none. [whisper-en; basic for quickstart, where digits are words]"),
]
ProviderOption = Annotated[
    str | None, typer.Option(help="local (our checkpoints) or huggingface (any other). [chosen by the checkpoint]")
]
ResultsOption = Annotated[
    Path | None, typer.Option(help="Folder of the results. [outputs/eval/…, the same for the same command]")
]
StreamingOption = Annotated[bool, typer.Option("--streaming", help="Read the dataset as it comes, not whole first.")]
RemoteCodeOption = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
FailuresOption = Annotated[bool, typer.Option("--allow-failures", help="Exit with 0 though clips failed.")]


@app.command()
def evaluate(
    model_id: Annotated[str | None, typer.Argument(metavar="MODEL", help="Same as --model.")] = None,
    model: ModelOption = None,
    dataset: DatasetsOption = None,
    max_samples: SampleOption = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "test",
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a Hub dataset.")] = None,
    audio_column: Annotated[str, typer.Option(help="Column with the audio.")] = "audio",
    text_column: Annotated[str, typer.Option(help="Column with the transcript.")] = "text",
    normalizer: NormalizerOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips decoded together.")] = 16,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    num_beams: BeamsOption = None,
    max_new_tokens: NewTokensOption = None,
    output_dir: ResultsOption = None,
    streaming: StreamingOption = False,
    provider: ProviderOption = None,
    trust_remote_code: RemoteCodeOption = False,
    allow_failures: FailuresOption = False,
) -> None:
    """Measure a model's word error rate and speed on a dataset. The same command again resumes."""
    from tiny_audio.evaluation import evaluate_datasets
    from tiny_audio.evaluation.settings import EvalSettings

    if model and model_id:
        raise typer.BadParameter(f"Two models are named, {model_id} and {model}; give one.")
    datasets = dataset or ["quickstart"]
    settings = EvalSettings(
        model=model or model_id or "nano",
        dataset=datasets[0],
        config=config,
        split=split,
        revision=revision,
        audio_column=audio_column,
        text_column=text_column,
        streaming=streaming,
        max_samples=max_samples,
        normalizer=normalizer,
        provider=provider,
        trust_remote_code=trust_remote_code,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        output_dir=output_dir,
    )
    evaluations = evaluate_datasets(settings, datasets)
    if any(metrics.num_failed for metrics in evaluations) and not allow_failures:
        raise typer.Exit(1)
