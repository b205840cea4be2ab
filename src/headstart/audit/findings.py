"""What an audit says and how it is set: findings, pairs, constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.errors import UsageError

SEVERITIES = ("error", "warning", "note")
MOST_EXAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found in the data, in words a user acts on.

    Attributes:
        code: a stable name for machines ('duplicates-exact').
        severity: 'error' (figures would be wrong), 'warning' (look at it), 'note' (good to know).
        message: what, how many, which first, what to do.
        count: how many images, pairs, groups or classes it concerns; the message says which.
        paths: names of some images it concerns.
    """

    code: str
    severity: str
    message: str
    count: int
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the severity."""
        assert self.severity in SEVERITIES


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images that may show the same.

    Attributes:
        first: row of the table.
        second: row of the table.
        kind: 'exact' (the same pixels), 'near' (both tests agree), 'suspect' (one does).
        tests: which tests agree, for people.
        distance: cosine distance of the whitened embeddings over its threshold; 1 is the limit.
        bits: how many of the 64 bits of the perceptual hashes differ, -1 where a picture is flat.
    """

    first: int
    second: int
    kind: str
    tests: str
    distance: float
    bits: int


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """The constants of an audit; `headstart.audit.neighbours` says how thresholds follow.

    Attributes:
        embedding_factor: share of the usual distance to the fifth neighbour that counts as near.
        hash_factor: the same for the bits of the perceptual hash.
        exact_limit: pictures up to which all pairs are compared; above, an approximate index.
        largest_group: most members of a group of near-duplicates.
        most_pairs: agreeing pairs that are kept in memory, the closest.
        most_suspects: suspicious pairs that are kept of each kind, the closest.
        tiny_class: a class below this many independent units is named.
        imbalance_ratio: largest over smallest class from which imbalance is a warning.
        note_margin: how far above chance an association must surely be, as a share of what
            chance leaves, to be named: in honest photographs busy classes make larger files.
        warning_margin: the same, to be a warning.
        most_rows: images that the classifier on file facts sees at most.
    """

    embedding_factor: float = 0.4
    hash_factor: float = 0.6
    exact_limit: int = 100_000
    largest_group: int = 50
    most_pairs: int = 2_000_000
    most_suspects: int = 500
    tiny_class: int = 10
    imbalance_ratio: float = 5.0
    note_margin: float = 0.1
    warning_margin: float = 0.3
    most_rows: int = 20_000

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: a constant out of its range.
        """
        for name in ("embedding_factor", "hash_factor", "note_margin", "warning_margin"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(
                    f"`{name}` must be between 0 and 1, got {getattr(self, name)}. Correct it."
                )
        for name, least in (
            ("exact_limit", 1),
            ("largest_group", 2),
            ("most_pairs", 1),
            ("most_suspects", 1),
            ("tiny_class", 1),
            ("imbalance_ratio", 1),
            ("most_rows", 100),
        ):
            if getattr(self, name) < least:
                raise UsageError(
                    f"`{name}` must be at least {least}, got {getattr(self, name)}. Correct it."
                )


def examples(paths: Sequence[str]) -> tuple[str, ...]:
    """The first few, for a finding."""
    return tuple(paths[:MOST_EXAMPLES])


def listed(names: Sequence[str], most: int = 3) -> str:
    """'a', 'b', 'c' and 4 more."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    rest = len(names) - most
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def counted(count: int, one: str, several: str = "") -> str:
    """'1 image', '1,200 images'."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"
