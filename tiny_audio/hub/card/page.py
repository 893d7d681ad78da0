"""The card as one text: ours between marks, all else as it was; metadata merged key by key."""

import re
from pathlib import Path

from tiny_audio.evaluation.card import split_card, updated_card
from tiny_audio.hub.card.facts import gather
from tiny_audio.hub.card.metadata import generated, merged, read_metadata
from tiny_audio.hub.card.sections import SECTIONS
from tiny_audio.hub.marks import has_marks, marked, refreshed

_BARE = re.compile(r"\s*(?:#[^\n]*\n?)?\s*")  # nothing, or a title alone


def card_text(checkpoint: Path, repository: str, existing: str | None) -> str:
    """The README.md of a checkpoint's repository.

    Args:
        checkpoint: its folder; what is known comes from it, from the run's folder around it, and from the evaluations
            of these weights.
        repository: OWNER/NAME, as the usage shows it.
        existing: the card that is there. Text outside our marks stays; sections whose marks were deleted stay out; a
            card without marks keeps its text and gets metadata only, but one that says nothing yet gets all of ours.

    Raises:
        TinyAudioError: no checkpoint of ours, metadata that is no YAML, or a mark without its other half.
    """
    existing = existing or ""
    given = read_metadata(existing)
    facts = gather(checkpoint, repository, given)
    sections = {name: write(facts).strip() for name, write in SECTIONS.items()}
    front, text = split_card(existing)
    if has_marks(text):
        text = refreshed(text, sections)
    elif _BARE.fullmatch(text):
        title = text.strip() or f"# {facts.name}"
        text = "\n\n".join([f"\n{title}", *(marked(name, body).strip() for name, body in sections.items())]) + "\n"
    card = merged(front + text, generated(facts))
    if facts.evaluations:
        card = updated_card(card, facts.name, facts.evaluations)
    same = front and read_metadata(card) == given
    return front + split_card(card)[1] if same else card  # with its own comments and order
