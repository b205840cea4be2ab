"""Class names as people write them: which ones look alike, and what that means."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from headstart.data.folders import class_name

MOST_NOTES = 5


def class_notes(labels: Iterable[str]) -> tuple[str, ...]:
    """One sentence for each set of labels that differ only by case, spaces or normalisation.

    Labels that are equal after NFC (one accent stored in two ways) are one class; all others stay
    as many classes as they are written, and the sentence says so.

    Args:
        labels: as they stand in the source, before any normalisation; repeats are allowed.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sorted(set(labels)):
        alike[_skeleton(label)].append(label)
    sentences = [_sentence(spelt) for spelt in alike.values() if len(spelt) > 1]
    if len(sentences) > MOST_NOTES:
        rest = len(sentences) - MOST_NOTES
        sentences[MOST_NOTES:] = [f"{rest} more sets of labels are almost alike."]
    return tuple(sentences)


def _skeleton(label: str) -> str:
    """What stays when case, width, accents' storage and spaces are taken away."""
    return "".join(unicodedata.normalize("NFKC", label).casefold().split())


def _sentence(spelt: list[str]) -> str:
    classes = sorted({class_name(label) for label in spelt})
    if len(classes) == 1:
        shown = " and ".join(ascii(label) for label in spelt)
        return f"Labels {shown} differ only in how an accent is stored and are one class."
    shown = " and ".join(f"'{label}'" for label in classes)
    count = {2: "two", 3: "three", 4: "four"}.get(len(classes), str(len(classes)))
    return f"Labels {shown} differ only in {_difference(classes)} and are {count} classes."


def _difference(classes: list[str]) -> str:
    """'case', 'spaces', 'normalisation', or several of them."""
    found = []
    plain = [unicodedata.normalize("NFKC", label) for label in classes]
    unspaced = ["".join(label.split()) for label in plain]
    if len({label.casefold() for label in unspaced}) < len(set(unspaced)):
        found.append("case")
    if len({label.casefold() for label in plain}) > 1:
        found.append("spaces")
    if len(set(plain)) < len(classes):
        found.append("normalisation")
    return " and ".join(found)
