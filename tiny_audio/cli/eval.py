"""`ta eval`: word error rate and speed of models on datasets and benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from tiny_audio.cli.options import BeamsOption, DeviceOption, DtypeOption, ModelOption, NewTokensOption

app = typer.Typer(rich_markup_mode=None, add_completion=False)

DatasetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset", "-d", help="Benchmark (see --list), local path, or Hub id; may be repeated. [quickstart]"
    ),
]
SampleOption = Annotated[
    int | None, typer.Option("--max-samples", "-n", min=1, help="Clips, drawn at random with a seed. [all]")
]
NormalizerOption = Annotated[
    str | None,
    typer.Option(help="whisper-en, basic or none. [whisper-en; basic for quickstart, where digits are words]"),
]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        help="local (our checkpoints), huggingface (any other), or a service: openai, endpoint, assemblyai, deepgram, "
        "elevenlabs (docs/providers.md). [chosen by the checkpoint]"
    ),
]
ProviderFileOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Your own: Python that puts its class into PROVIDERS."),
]
BaseUrlOption = Annotated[str | None, typer.Option(help="Root of a service's API. [the vendor's]")]
KeyOption = Annotated[
    str | None, typer.Option(help="Of a service; others on this machine can read it in `ps`. [its variable]")
]
WorkersOption = Annotated[int, typer.Option("--workers", "-w", min=1, help="Requests to a service at a time.")]
TimeoutOption = Annotated[float, typer.Option(help="Seconds of a whole request to a service.")]
RetriesOption = Annotated[int, typer.Option(min=0, help="Of a request that a service could not answer.")]
PriceOption = Annotated[float | None, typer.Option(help="US dollars for a minute of audio. [of prices.toml]")]
WordTimesOption = Annotated[bool, typer.Option("--word-times", help="Ask for the times of words, and their speakers.")]
FirstTokenOption = Annotated[
    bool, typer.Option("--first-token", help="Stream the text: when does its first piece come?")
]
ProvidersOption = Annotated[
    str | None, typer.Option(metavar="A,B:MODEL…", help="Several, measured side by side; each with a model of its own.")
]
ResultsOption = Annotated[
    Path | None, typer.Option(help="Folder of the results. [outputs/eval/…, the same for the same command]")
]
ReplacementsOption = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Lines `this => that`, for both sides when scored.")
]
StreamingOption = Annotated[bool, typer.Option("--streaming", help="Read the dataset as it comes, not whole first.")]
RemoteCodeOption = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
FailuresOption = Annotated[bool, typer.Option("--allow-failures", help="Exit with 0 though clips failed.")]
KeepAudioOption = Annotated[bool, typer.Option("--keep-audio", help="Copy each clip into the results, for reports.")]
PushOption = Annotated[bool, typer.Option("--push-results", help="Add the figures to the model's card.")]


def list_benchmarks(wanted: bool) -> None:
    if wanted:
        from tiny_audio import console
        from tiny_audio.evaluation.benchmarks import COLUMNS, listing

        console.table(COLUMNS, listing(), right=("hours",))
        raise typer.Exit


ListOption = Annotated[
    bool, typer.Option("--list", callback=list_benchmarks, is_eager=True, help="The benchmarks, with their licences.")
]


@app.command()
def evaluate(
    model_id: Annotated[str | None, typer.Argument(metavar="MODEL", help="Same as --model.")] = None,
    model: ModelOption = None,
    dataset: DatasetsOption = None,
    max_samples: SampleOption = None,
    split: Annotated[str | None, typer.Option(help="Split of the dataset. [the benchmark's, or test]")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a Hub dataset.")] = None,
    audio_column: Annotated[str | None, typer.Option(help="Column with the audio. [audio]")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column with the transcript. [text]")] = None,
    normalizer: NormalizerOption = None,
    replacements: ReplacementsOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips decoded together.")] = 16,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    num_beams: BeamsOption = None,
    max_new_tokens: NewTokensOption = None,
    output_dir: ResultsOption = None,
    streaming: StreamingOption = False,
    keep_audio: KeepAudioOption = False,
    provider: ProviderOption = None,
    providers: ProvidersOption = None,
    provider_file: ProviderFileOption = None,
    base_url: BaseUrlOption = None,
    api_key: KeyOption = None,
    workers: WorkersOption = 4,
    timeout: TimeoutOption = 120.0,
    retries: RetriesOption = 5,
    price_per_minute: PriceOption = None,
    word_times: WordTimesOption = False,
    first_token: FirstTokenOption = False,
    trust_remote_code: RemoteCodeOption = False,
    allow_failures: FailuresOption = False,
    push_results: PushOption = False,
    list_all: ListOption = False,
) -> None:
    """Measure word error rate and speed on datasets and benchmarks. The same command again resumes."""
    given = dict(locals())
    from tiny_audio.evaluation import evaluate_all
    from tiny_audio.evaluation.settings import EvalSettings

    if model and model_id:
        raise typer.BadParameter(f"Two models are named, {model_id} and {model}; give one.")
    several = [] if providers is None else [name.strip() for name in providers.split(",")]
    if providers is not None and (model or model_id or provider or "" in several):
        raise typer.BadParameter("--providers takes A,B:MODEL… in place of --model and --provider; each needs a name.")
    settings = EvalSettings.of(given, model=model or model_id)
    evaluations = evaluate_all(settings, dataset or ["quickstart"], several, push=push_results)
    if any(metrics.num_failed for metrics in evaluations) and not allow_failures:
        raise typer.Exit(1)
