"""Evaluation: benchmarks, providers, scores, the results folder, the run and its report."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_audio.evaluation.results import Metrics
    from tiny_audio.evaluation.settings import EvalSettings


def evaluate_all(
    settings: "EvalSettings", datasets: Sequence[str], providers: Sequence[str] = (), push: bool = False
) -> "list[Metrics]":
    """Measure one model, or several side by side, each loaded once, on several datasets, and print what was found.

    Args:
        datasets: benchmarks, their groups, or what DataConfig.path takes.
        providers: `NAME` or `NAME:MODEL` each, in place of the settings' own provider and model.
        push: add the figures to the models' cards.

    Raises:
        TinyAudioError: as `evaluate`, and for a card that cannot be written.
    """
    from tiny_audio.errors import TinyAudioError
    from tiny_audio.evaluation.report import print_comparison, print_report

    if len(providers) > 1 and (settings.api_key or settings.base_url):
        raise TinyAudioError("A key or a base URL belongs to one service: with --providers set the keys' variables.")
    models = [_with_provider(settings, name) for name in providers] or [settings]
    if push:
        from tiny_audio.evaluation.card import push_results, require_card

        for model in models:
            require_card(model)
    evaluations = []
    for model in models:
        measured = _evaluate_model(model, datasets, several=len(models) > 1)
        print_report(measured)
        if push:
            push_results(model, measured)
        evaluations += measured
    if len(models) > 1:
        print_comparison(evaluations)
    return evaluations


def _with_provider(settings: "EvalSettings", name: str) -> "EvalSettings":
    provider, _, model = name.partition(":")
    return replace(settings, provider=provider, model=model or settings.model)


def _evaluate_model(settings: "EvalSettings", datasets: Sequence[str], several: bool) -> "list[Metrics]":
    from tiny_audio.evaluation.benchmarks import expand
    from tiny_audio.evaluation.providers import model_of, open_provider
    from tiny_audio.evaluation.run import evaluate, slug

    opened = cache(lambda: open_provider(settings))
    evaluations = []
    names = expand(datasets)
    for dataset in names:
        run = replace(settings, dataset=dataset)
        if settings.output_dir is not None and several:
            run = replace(run, output_dir=settings.output_dir / slug(f"{settings.provider}-{model_of(settings)}"))
        if run.output_dir is not None and len(names) > 1:
            run = replace(run, output_dir=run.output_dir / slug(dataset))
        evaluations.append(evaluate(run, lambda _: opened()))
    return evaluations
