"""The YAML at the top of a card: which keys are ours, and which the user added, changed or deleted."""

import json
import re
from collections.abc import Mapping
from typing import Any

from tiny_audio.evaluation.card import read_card, split_card
from tiny_audio.hub.card.facts import Facts
from tiny_audio.model_source import is_hub_id

TAGS = ["tiny-audio", "asr", "speech-recognition", "audio"]
_WRITTEN = re.compile(r"^<!-- tiny-audio wrote (?P<json>\{.*\}) -->(?=\s*?$)", re.MULTILINE)


def generated(facts: Facts) -> dict[str, Any]:
    """What is known of a model in the Hub's words; a licence is never among it, since only the user can choose one."""
    config = facts.config
    names = (facts.started_from, config.audio_model_id, config.text_model_id)
    bases = [str(name).partition("@")[0] for name in names if is_hub_id(name)]
    values = {
        "language": facts.languages,
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "base_model": list(dict.fromkeys(bases)),
        "base_model_relation": "finetune" if bases else None,
        "datasets": list(dict.fromkeys(dataset.path for dataset in facts.datasets if dataset.on_hub)),
        "tags": TAGS,
    }
    return {key: value for key, value in values.items() if value}


def merged(content: str, ours: Mapping[str, Any]) -> str:
    """The card with our metadata, and at its end a comment on what they were.

    A key that still has the value that we wrote last gets the new one; one that the user added, changed or deleted
    stays so.
    """
    wrote = _written(content)
    card = read_card(content)
    there = {key: value for key, value in card.data.to_dict().items() if value not in (None, [])}
    for key in {**wrote, **ours}:
        if there.get(key) == wrote.get(key):
            card.data[key] = ours.get(key)
    card.text = _with_note(card.text, ours)
    return str(card)


def read_metadata(content: str) -> dict[str, Any]:
    """A card's metadata; empty where it has none.

    Raises:
        TinyAudioError: they are no YAML, or not as the Hub wants them.
    """
    return read_card(content).data.to_dict() if split_card(content)[0] else {}


def _written(content: str) -> dict[str, Any]:
    """What we wrote last; nothing, where the comment is gone or was damaged, so that all keys are the user's."""
    note = _WRITTEN.search(content)
    try:
        return dict(json.loads(note["json"])) if note else {}
    except (ValueError, TypeError):
        return {}


def _with_note(text: str, ours: Mapping[str, Any]) -> str:
    line_end = "\r\n" if "\r\n" in text else "\n"
    note = f"<!-- tiny-audio wrote {json.dumps(ours, sort_keys=True).replace('>', chr(92) + 'u003e')} -->"
    if _WRITTEN.search(text):
        return _WRITTEN.sub(lambda _: note, text, count=1)
    return f"{text}{'' if text.endswith(line_end) else line_end}{line_end}{note}{line_end}"
