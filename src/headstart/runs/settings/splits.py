"""What a user says of the split, read from text: `--folds` and `--ratio`."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.errors import UsageError

LEAVE_ONE_GROUP_OUT = "leave-one-group-out"
LEAVE_ONE_SOURCE_OUT = "leave-one-source-out"
FOLD_SCHEMES = (LEAVE_ONE_GROUP_OUT, LEAVE_ONE_SOURCE_OUT)
INNER_FRACTION = 0.2
TEST_FRACTION = 0.2
TOTALS = (100.0, 1.0)
MOST_INNER_FOLDS = 20
MOST_PENALTIES = 100


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Shares of the images.

    Attributes:
        test_fraction: of all images, held out to test on.
        inner_fraction: of what a fold learns from, held out to choose settings on.
        note: what was made of three shares; '' for two.
    """

    test_fraction: float
    inner_fraction: float = INNER_FRACTION
    note: str = ""


def check_split_settings(
    folds: int | str, test_fraction: float, ratio: str | None, splits: str | None
) -> None:
    """Refuse settings of the split that cannot be, or that contradict each other.

    Raises:
        UsageError: one such.
    """
    parse_folds(folds)
    if not 0 < test_fraction < 1:
        raise UsageError(
            f"`test_fraction` must be a number between 0 and 1, got {test_fraction}. "
            f"The usual value is {TEST_FRACTION:g}."
        )
    if ratio is None:
        return
    parse_ratio(ratio)
    other = "--splits" if splits is not None else "--test-fraction"
    if splits is not None or test_fraction != TEST_FRACTION:
        raise UsageError(
            f"`ratio` {ratio} says how much is tested on, and so does {other}. Leave one out."
        )


def check_inner_settings(inner_folds: int, num_penalties: int, ratio: str | None) -> None:
    """Refuse what cannot be said of the choice inside every fold.

    Raises:
        UsageError: a number out of range, or two ways to say what chooses.
    """
    for name, value, most in (
        ("inner_folds", inner_folds, MOST_INNER_FOLDS),
        ("num_penalties", num_penalties, MOST_PENALTIES),
    ):
        if not 1 <= value <= most:
            raise UsageError(
                f"`{name}` must be between 1 and {most}, got {value}. "
                f"Correct --{name.replace('_', '-')}."
            )
    if inner_folds > 1 and ratio is not None and ratio.count("/") == 2:
        raise UsageError(
            f"`ratio` {ratio} says by its val share what chooses settings, and so does "
            f"`inner_folds` {inner_folds}. Leave one out."
        )


def parse_folds(value: int | str) -> int | str:
    """A number of folds, or the name of a scheme.

    Raises:
        UsageError: neither.
    """
    text = str(value).strip()
    if text in FOLD_SCHEMES:
        return text
    number = int(text) if text.isdecimal() else None
    if number is None:
        raise UsageError(
            f"`folds` must be a number, {' or '.join(FOLD_SCHEMES)}, got '{value}'. "
            "Correct --folds."
        )
    if number < 2:
        raise UsageError(f"`folds` must be at least 2, got {number}. Raise --folds.")
    return number


def parse_ratio(text: str) -> Ratio:
    """'80/20' or '70/15/15' as shares for train, (val,) test.

    No image is put aside for validation alone: settings are chosen inside every fold. The val
    share is how much of a fold's training part chooses them, val / (train + val).

    Raises:
        UsageError: not two or three positive shares that add up to 100 or to 1.
    """
    try:
        shares = [float(part) for part in text.split("/")]
    except ValueError:
        shares = []
    adds_up = any(abs(sum(shares) - total) < 1e-6 * total for total in TOTALS)
    if len(shares) not in (2, 3) or not adds_up or not all(share > 0 for share in shares):
        raise UsageError(
            "`ratio` must be two or three shares above 0 that add up to 100 or to 1, as in 80/20 "
            f"(train/test) or 70/15/15 (train/val/test), got '{text}'. Correct --ratio."
        )
    test = shares[-1] / sum(shares)
    if len(shares) == 2:
        return Ratio(test_fraction=test)
    inner = shares[1] / (shares[0] + shares[1])
    return Ratio(
        test_fraction=test,
        inner_fraction=inner,
        note=f"The val share of {text} is {100 * inner:.3g} % of what each fold learns from, on "
        "which its settings are chosen; train and val together are cross-validated and learnt "
        "from.",
    )
