"""The sections of a card, in their order: each is what the facts say, and empty where they say nothing."""

from collections.abc import Callable

from tiny_audio.console import markdown
from tiny_audio.hub.card.facts import Facts
from tiny_audio.hub.card.usage import usage

PART_NAMES = {
    "encoder": "encoder",
    "projector": "projector",
    "language_model": "language model",
    "ctc_head": "CTC head",
}


def about(facts: Facts) -> str:
    """What it is, in a paragraph."""
    return f"{facts.name} turns speech into text."


def architecture(facts: Facts) -> str:
    rows = [(PART_NAMES[part.name], f"{part.total:,}", f"{part.trainable:,}") for part in facts.parts]
    return "## Architecture\n\n" + markdown(("part", "parameters", "trained"), rows, ("parameters", "trained"))


SECTIONS: dict[str, Callable[[Facts], str]] = {
    "about": about,
    "usage": usage,
    "architecture": architecture,
}
