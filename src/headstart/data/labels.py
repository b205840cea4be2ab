"""Class names as people write them: which ones look alike, and what that means."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import Decimal

from headstart.data.folders import class_name

MOST_NOTES = 5
# What programs write where a value is missing; each may be meant as a class all the same.
MISSING_WORDS = frozenset({"nan", "null", "none", "na", "n/a", "<na>"})
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


def class_notes(labels: Iterable[str]) -> tuple[str, ...]:
    """One sentence for each set of labels that differ only by case, spaces or normalisation.

    Labels that are one number written in several ways (1, 1.0 and 01) get a sentence as well.

    Labels that are equal after NFC (one accent stored in two ways) are one class; all others stay
    as many classes as they are written, and the sentence says so.

    Args:
        labels: as they stand in the source, before any normalisation; repeats are allowed.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sorted(set(labels)):
        alike[_skeleton(label)].append(label)
    sentences = [_sentence(spelt) for spelt in alike.values() if len(spelt) > 1]
    numbers: dict[Decimal, list[str]] = defaultdict(list)
    for label in sorted({label.strip() for spelt in alike.values() for label in spelt}):
        if _NUMBER.fullmatch(label):
            numbers[Decimal(label)].append(label)
    sentences += [_number_sentence(spelt) for spelt in numbers.values() if len(spelt) > 1]
    if len(sentences) > MOST_NOTES:
        rest = len(sentences) - MOST_NOTES
        sentences[MOST_NOTES:] = [f"{rest} more sets of labels are almost alike."]
    return tuple(sentences)


def missing_notes(labels: Iterable[str]) -> tuple[str, ...]:
    """One sentence about labels that may stand for a missing one, such as 'nan'.

    Args:
        labels: one a row, so that they can be counted.
    """
    counts = Counter(label for label in labels if label.strip().casefold() in MISSING_WORDS)
    if not counts:
        return ()
    shown = ", ".join(f"'{class_name(label)}' ({counts[label]:,})" for label in sorted(counts))
    total = counts.total()
    return (
        f"{total:,} {'row has' if total == 1 else 'rows have'} a label that may stand for a "
        f"missing one and is taken as a class of that name: {shown}. Leave the cells empty where "
        "there is no label.",
    )


def _skeleton(label: str) -> str:
    """What stays when case, width, accents' storage and spaces are taken away."""
    return "".join(unicodedata.normalize("NFKC", label).casefold().split())


def _sentence(spelt: list[str]) -> str:
    classes = sorted({class_name(label) for label in spelt})
    if len(classes) == 1:
        shown = " and ".join(ascii(label) for label in spelt)
        return f"Labels {shown} differ only in how an accent is stored and are one class."
    shown = " and ".join(f"'{label}'" for label in classes)
    return (
        f"Labels {shown} differ only in {_difference(classes)} and are {_count(classes)} classes."
    )


def _number_sentence(spelt: list[str]) -> str:
    shown = " and ".join(f"'{label}'" for label in spelt)
    return f"Labels {shown} look like one number and are {_count(spelt)} classes."


def _count(classes: list[str]) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(len(classes), str(len(classes)))


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
