"""Evaluation: providers, scores, the results folder, the run and its report."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_audio.evaluation.results import Metrics
    from tiny_audio.evaluation.settings import EvalSettings


def evaluate_datasets(settings: "EvalSettings", datasets: Sequence[str]) -> "list[Metrics]":
    """Measure one model, loaded once, on several datasets, and print one report."""
    from tiny_audio.evaluation.providers import open_provider
    from tiny_audio.evaluation.report import print_report
    from tiny_audio.evaluation.run import evaluate, slug

    opened = cache(lambda: open_provider(settings))
    evaluations = []
    for dataset in datasets:
        run = replace(settings, dataset=dataset)
        if settings.output_dir is not None and len(datasets) > 1:
            run = replace(run, output_dir=settings.output_dir / slug(dataset))
        evaluations.append(evaluate(run, lambda _: opened()))
    print_report(evaluations)
    return evaluations
