"""Groups: images that must stay together when the data are split.

`--group-by` is the name of a column where there is such a column, else a regular expression that
is searched in each image's path: its first group that takes part is the image's group, or the whole
match where none does. 'IM-([0-9]+)' takes the patient out of 'NORMAL/IM-0115-0001.jpeg'.

Some expressions, such as '(a+)+$', take time exponential in the length of a path. `re` has no limit
of its own, but looks for signals while it matches, so a timer ends it. Python delivers signals to
the main thread only: in another thread, and where timers are missing, there is no limit.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence

from headstart.data.folders import close_names
from headstart.data.listed.columns import existing_column
from headstart.errors import DataError, UsageError

# Of the processor's time. A million paths take about two seconds with a harmless expression.
MATCHING_LIMIT_S = 10.0
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_ ]*")


def find_groups(
    paths: Sequence[str],
    cells: Sequence[Mapping[str, str]],
    columns: Sequence[str],
    group_by: str,
    *,
    needed: Sequence[bool],
    split: bool = True,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The group of every image.

    Args:
        paths: N names of images.
        cells: N rows of a manifest or metadata file; an image may lack columns.
        columns: of that file, none where there is none.
        group_by: column or regular expression.
        needed: N, False for images that need no group (those without a label).
        split: as in `check_groups`.

    Returns:
        N groups, '' for an image that needs none and has none, and notes.

    Raises:
        DataError: an image has no group, or all have the same.
        UsageError: no column, and no regular expression.
    """
    if any(group_by.casefold() == name.casefold() for name in columns):
        column = existing_column(group_by, columns, "The data")
        groups = [row.get(column, "").strip() for row in cells]
        fault = f"have nothing in the column '{column}'"
    else:
        groups = _match_all(group_by, paths, columns)
        fault = f"do not match the regular expression '{group_by}'"
    subject = f"`--group-by {group_by}`"
    return check_groups(paths, groups, subject, fault, needed=needed, split=split)


def check_groups(
    paths: Sequence[str],
    groups: Sequence[str],
    subject: str,
    fault: str,
    *,
    needed: Sequence[bool],
    split: bool = True,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The groups and a note about them, after the check that they can be split.

    Args:
        paths: N names of images.
        groups: N groups, '' where there is none.
        subject: how messages name what gave the groups.
        fault: what is said of images without a group.
        needed: N, False for images that need none.
        split: whether they must come apart; a finished model can be judged on one group.

    Raises:
        DataError: an image has no group, or all have the same.
    """
    lacking = [
        path
        for path, group, asked in zip(paths, groups, needed, strict=True)
        if asked and not group
    ]
    if lacking:
        raise DataError(
            f"{subject} gives no group to {len(lacking):,} of {len(paths):,} images, which "
            f"{fault}: '{lacking[0]}' is the first. Every image needs one."
        )
    distinct = {group for group, asked in zip(groups, needed, strict=True) if asked}
    if len(distinct) == 1 and split:
        raise DataError(
            f"{subject} puts all images into one group, '{distinct.pop()}', and a group cannot be "
            "split. Name a column or a regular expression that tells groups apart."
        )
    notes: tuple[str, ...] = ()
    if 0 < len(distinct) == sum(needed):
        notes = (f"{subject} gives every image a group of its own, so it changes nothing.",)
    return tuple(groups), notes


class _TooSlowError(Exception):
    """The time for matching is over."""


def _match_all(text: str, paths: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The groups by a regular expression, within `MATCHING_LIMIT_S`."""
    try:
        with _limited(MATCHING_LIMIT_S):
            pattern = _compile(text, columns)
            return [_group_of(pattern.search(path)) for path in paths]
    except _TooSlowError:
        raise UsageError(
            f"`--group-by {text}` took more than {MATCHING_LIMIT_S:g} s on {len(paths):,} paths: "
            "as a regular expression it tries too many ways, as one repetition inside another "
            "does. Simplify it."
        ) from None


@contextlib.contextmanager
def _limited(limit_s: float) -> Iterator[None]:
    """Raise `_TooSlowError` after so much time of the processor; no limit beside the main thread.

    The processor's time, because a busy machine must not make an expression too slow.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise _TooSlowError

    handler = signal.signal(signal.SIGVTALRM, stop)
    timer = signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, *timer)
        # None stands for a handler that Python did not set and cannot give back.
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL if handler is None else handler)


def _compile(text: str, columns: Sequence[str]) -> re.Pattern[str]:
    if _IDENTIFIER.fullmatch(text):
        shown = ", ".join(f"'{name}'" for name in columns)
        known = f"Columns are {shown}." if columns else "The data bring no columns."
        raise UsageError(
            f"`--group-by {text}` names no column. {close_names(text, columns)}{known} A regular "
            "expression on the path works as well, such as 'IM-([0-9]+)'."
        )
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(
            f"`--group-by` must be a column or a regular expression, got '{text}': {error}. "
            "Correct it."
        ) from error


def _group_of(match: re.Match[str] | None) -> str:
    """The first group that took part in a match, or all of it; '' for none."""
    if match is None:
        return ""
    return next(filter(None, match.groups()), match.group(0))
