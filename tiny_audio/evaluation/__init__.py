"""Evaluation: benchmarks, providers, scores, the results folder, the run and its report."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_audio.evaluation.providers import Provider
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
    from tiny_audio.evaluation.card import push_results, require_card
    from tiny_audio.evaluation.report import print_comparison, print_report

    if len(providers) > 1 and (settings.api_key or settings.base_url):
        raise TinyAudioError("A key or a base URL belongs to one service: with --providers set the keys' variables.")
    models = [_with_provider(settings, name) for name in providers] or [settings]
    openers = [_opener(model) for model in models]  # what is wrong with the last is said before the first is measured
    if push:
        for model in models:
            require_card(model)
    evaluations = []
    for model, opener in zip(models, openers, strict=True):
        measured = _evaluate_model(model, opener, datasets, several=len(models) > 1)
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


def _opener(settings: "EvalSettings") -> "Callable[[EvalSettings], Provider]":
    """Opens the model when it is first needed, once for all datasets; a service at once, since it only wants a key."""
    from tiny_audio.evaluation.providers import open_provider, source_of

    opened = cache(lambda: open_provider(settings))
    if source_of(settings) is None:
        opened()
    return lambda _: opened()


def _evaluate_model(
    settings: "EvalSettings", opener: "Callable[[EvalSettings], Provider]", datasets: Sequence[str], several: bool
) -> "list[Metrics]":
    from tiny_audio.evaluation.benchmarks import expand
    from tiny_audio.evaluation.providers import model_of
    from tiny_audio.evaluation.run import evaluate, slug

    names, home = expand(datasets), settings.output_dir
    if home is not None and several:
        home = home / slug(f"{settings.provider}-{model_of(settings)}")
    evaluations = []
    for number, dataset in enumerate(names, start=1):
        folder = home
        if home is not None and len(names) > 1:
            same = [slug(name) for name in names].count(slug(dataset)) > 1
            folder = home / (f"{slug(dataset)}-{number}" if same else slug(dataset))
        evaluations.append(evaluate(replace(settings, dataset=dataset, output_dir=folder), opener))
    return evaluations
