"""Names, numbers and dates of the references: how many were recognised, and which were missed most."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from tiny_audio.analysis.alignment import Alignment, align
from tiny_audio.analysis.entity_words import Entity, find_entities, has_case
from tiny_audio.analysis.output import Column, Report, Table, counted
from tiny_audio.analysis.runs import Run
from tiny_audio.console import printable
from tiny_audio.text.normalizers import get_normalizer

KINDS = ("name", "number", "date")
SPACY_KINDS = {
    **dict.fromkeys("PERSON NORP FAC ORG GPE LOC PRODUCT EVENT WORK_OF_ART LAW LANGUAGE".split(), "name"),
    **dict.fromkeys("PERCENT MONEY QUANTITY ORDINAL CARDINAL".split(), "number"),
    **dict.fromkeys("DATE TIME".split(), "date"),
}
SPACY_MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_trf")
Finder = Callable[[Sequence[str]], Iterator[list[Entity]]]

RECALL = Column("recall", "recall", "{:.1%}".format)
KIND = Column("kind", "kind", printable)
COLUMNS = (KIND, Column("occurrences", "in references"), Column("missed", "missed"), RECALL)
MISSED_COLUMNS = (KIND, Column("text", "text", printable), *COLUMNS[1:])


@dataclass(frozen=True)
class Occurrence:
    """An entity in a clip's reference, as it was scored."""

    kind: str
    text: str
    recognised: bool  # all of its words are in the prediction, where they belong


def entities(run: Run) -> Report:
    """Recall of names, numbers and dates, and the most missed; an entity with one wrong word is missed."""
    find, how = _finder([result.reference for result in run.scored])
    occurrences, lost = _occurrences(run, find)
    counts = _recalls(occurrences, lambda entity: (entity.kind,))
    by_kind = [next((row for row in counts if row[0] == kind), (kind, 0, 0, None)) for kind in KINDS]
    most_missed = [row for row in _recalls(occurrences, lambda entity: (entity.kind, entity.text)) if row[-2]]
    tables = [
        Table("kinds", f"{run.title}: names, numbers and dates", COLUMNS, by_kind, whole=True),
        Table("missed", "Missed most", MISSED_COLUMNS, most_missed),
    ]
    findings = [how]
    if lost:
        findings.append(f"Left out: {counted(lost, 'part')} that the normaliser writes otherwise within a sentence.")
    return Report("entities", {"run": str(run.folder), "left_out": lost}, tables, findings)


def _occurrences(run: Run, find: Finder) -> tuple[list[Occurrence], int]:
    """The entities of all references, and how many could not be placed in the words that were scored."""
    normalize = cache(get_normalizer(run.metrics.normalizer["name"]).function)
    occurrences, lost = [], 0
    references = [result.reference for result in run.scored]
    for found, alignment in zip(find(references), align(run.scored), strict=True):
        placed = list(_placed(found, alignment, normalize))
        occurrences += placed
        lost += len(found) - len(placed)
    return occurrences, lost


def _recalls(occurrences: Sequence[Occurrence], key: Callable[[Occurrence], tuple]) -> list[tuple]:
    """Key, occurrences, missed, recall: the most missed first."""
    total = Counter(map(key, occurrences))
    missed = Counter(key(entity) for entity in occurrences if not entity.recognised)
    rows = [(*name, count, missed[name], 1 - missed[name] / count) for name, count in total.items()]
    return sorted(rows, key=lambda row: (-row[-2], row[-1], row))


def _placed(found: Sequence[Entity], alignment: Alignment, normalize: Callable[[str], str]) -> Iterator[Occurrence]:
    """The entities in the words that were scored, from left to right; one that is not found there is left out."""
    words, recognised, start = alignment.reference, alignment.recognised(), 0
    for entity in found:
        wanted = normalize(entity.text).split()
        place = _find(wanted, words, start)
        if place is None:
            continue
        start = place + len(wanted)
        yield Occurrence(entity.kind, " ".join(wanted), all(recognised[place:start]))


def _find(wanted: list[str], words: list[str], start: int) -> int | None:
    while wanted and wanted[0] in words[start:]:
        start = words.index(wanted[0], start)
        if words[start : start + len(wanted)] == wanted:
            return start
        start += 1
    return None


# ---- how entities are found


def _finder(references: Sequence[str]) -> tuple[Finder, str]:
    """What finds the entities of texts, and a sentence on it."""
    model = _spacy_model()
    if model is not None:
        return lambda texts: _by_spacy(model, texts), f"Found by spaCy's {model}."
    how = "Found by rules, since no spaCy model is installed: number words and digits; months, weekdays and years; "
    cased = has_case(references)
    names = "capitalised words within sentences." if cased else "no names, since the references do not tell capitals."
    return lambda texts: (find_entities(text, cased) for text in texts), how + names


def _spacy_model() -> str | None:
    """The best installed English model that needs no torch, or else the one that does."""
    if importlib.util.find_spec("spacy") is None:
        return None
    from spacy.util import get_installed_models

    installed = set(get_installed_models())
    return next((name for name in SPACY_MODELS if name in installed), None)


def _by_spacy(model: str, texts: Sequence[str]) -> Iterator[list[Entity]]:
    import spacy

    pipeline = spacy.load(model, exclude=["parser", "tagger", "attribute_ruler", "lemmatizer"])
    for document in pipeline.pipe(texts, batch_size=256):
        kinds = ((SPACY_KINDS.get(entity.label_), entity.text) for entity in document.ents)
        yield [Entity(kind, text) for kind, text in kinds if kind]
