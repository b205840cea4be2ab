"""What a run's files say beyond its figures: parts, duplicates, groups, medical words.

The functions count; `alarms`, `leakage` and `claim` put the counts into words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.report.reading import Row, StoredRun

CROPPED = re.compile(r"cropped to box \([^)]*\)")
MEDICAL_WORDS = (
    "xray", "x-ray", "cxr", "ct", "mri", "ultrasound", "mammography", "mammogram",
    "radiograph", "radiology", "pneumonia", "covid", "covid-19", "tuberculosis", "lesion",
    "tumor", "tumour", "cancer", "carcinoma", "melanoma", "histology", "histopathology",
    "retinopathy", "fundus", "malignant", "benign", "nodule", "fracture", "patient", "patients",
    "biopsy", "glaucoma", "dermoscopy", "endoscopy", "polyp", "cardiomegaly", "effusion",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Parts:
    """How images went to the parts.

    Attributes:
        learnt: images a class that may be learnt from, in class order.
        tested: images a class of the test part, in class order.
        kept: images a class of the calibration part, in class order.
        num_folds: cross-validation folds.
    """

    learnt: tuple[int, ...]
    tested: tuple[int, ...]
    kept: tuple[int, ...]
    num_folds: int


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Byte-identical images.

    Attributes:
        across: paths of test images that also stand in the training part.
        labels: paths of images whose twin has another label.
        folds: how many twins sit in different folds.
        known: whether digests of both parts were there to compare.
    """

    across: tuple[str, ...]
    labels: tuple[str, ...]
    folds: int
    known: bool


@dataclass(frozen=True, kw_only=True)
class Groups:
    """How groups (patients, videos) went to the parts.

    Attributes:
        total: how many groups, 0 where none were given.
        across: groups with images in training and in test part.
        aside: groups with images in the calibration part and in another one.
        folds: groups with images in several folds.
    """

    total: int
    across: tuple[str, ...]
    aside: tuple[str, ...]
    folds: tuple[str, ...]


def count_parts(run: StoredRun) -> Parts:
    """Images of each class in each part, from `splits.csv`, else from the figures."""
    names = run.class_names
    counts = Counter((row["part"], row["label"]) for row in run.splits)
    folds = run.metrics["cross_validation"].get("num_folds") or run.settings.get("folds", 0)
    if counts:
        learnt = tuple(counts["train", name] for name in names)
        tested = tuple(counts["test", name] for name in names)
        kept = tuple(counts["calibration", name] for name in names)
    else:
        matrix = run.metrics["test"].get("confusion_matrix") or [[0]] * len(names)
        tested = tuple(sum(row) for row in matrix)
        whole = run.record["data"]["class_counts"]
        learnt = tuple(int(a) - b for a, b in zip(whole, tested, strict=True))
        kept = (0,) * len(names)
    return Parts(learnt=learnt, tested=tested, kept=kept, num_folds=int(folds))


def find_duplicates(run: StoredRun) -> Duplicates:
    """Images with the same bytes that stand in both parts, or under two labels.

    Two boxes of one picture are two images.
    """
    digests = {
        row["path"]: (row["digest"], *CROPPED.findall(row.get("treatment", "")))
        for row in run.images
        if row.get("digest")
    }
    twins: dict[tuple[str, ...], list[Row]] = {}
    for row in run.splits:
        digest = digests.get(row["path"])
        if digest:
            twins.setdefault(digest, []).append(row)
    several = [rows for rows in twins.values() if len(rows) > 1]
    across: list[str] = []
    labels: list[str] = []
    folds = 0
    for rows in several:
        parts = {row["part"] for row in rows}
        if parts >= {"train", "test"}:
            across.extend(row["path"] for row in rows if row["part"] == "test")
        if len({row["label"] for row in rows}) > 1:
            labels.extend(row["path"] for row in rows)
        folds += len({row.get("fold") for row in rows if row["part"] == "train"}) > 1
    return Duplicates(across=tuple(across), labels=tuple(labels), folds=folds, known=bool(twins))


def follow_groups(run: StoredRun) -> Groups:
    """Whether any group was torn apart."""
    parts: dict[str, set[str]] = {}
    folds: dict[str, set[str]] = {}
    for row in run.splits:
        group = row.get("group", "")
        if group:
            parts.setdefault(group, set()).add(row["part"])
            if row["part"] == "train":
                folds.setdefault(group, set()).add(row.get("fold", ""))
    return Groups(
        total=len(parts),
        across=tuple(sorted(g for g, p in parts.items() if p >= {"train", "test"})),
        aside=tuple(sorted(g for g, p in parts.items() if "calibration" in p and len(p) > 1)),
        folds=tuple(sorted(g for g, f in folds.items() if len(f) > 1)),
    )


def looks_medical(run: StoredRun, answers: Mapping[str, str]) -> bool:
    """Whether the data look medical, by the words in their names or by what the author says."""
    said = answers.get("medical", "").strip().lower()
    if said:
        return said in ("yes", "true", "1")
    last = re.split(r"[\\/]", str(run.settings.get("data", "")).rstrip("/\\"))[-1]
    text = " ".join([run.name, last, *run.class_names]).lower()
    words = set(re.split(r"[^a-z0-9]+", text)) | set(re.split(r"[^a-z0-9-]+", text))
    return any(word in MEDICAL_WORDS or word.startswith("covid") for word in words)


def best_rival(baselines: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Name and figures of the best simple rival that looks at the images, None without any."""
    rivals = {name: b for name, b in baselines.items() if name != COMMONEST and "accuracy" in b}
    if not rivals:
        return None
    name = max(rivals, key=lambda key: (rivals[key]["accuracy"], key))
    return name, rivals[name]


COMMONEST = "commonest class"
RIVALS = {
    "neighbours": "nearest neighbours",
    "class-mean": "nearest class mean",
    "cosine-mean": "nearest class mean by angle",
}


def rival_label(name: str) -> str:
    """A baseline in words."""
    return RIVALS.get(name, name)


def rival_sample(rival: Mapping[str, Any]) -> str:
    """' on a sample of 5,000 images' where a baseline was not scored on all, else ''."""
    return f" on a sample of {rival['sample']:,} images" if "sample" in rival else ""


def commonest_share(parts: Parts) -> tuple[int, float]:
    """Index of the class that training knows best, and its share of the test part."""
    largest = max(range(len(parts.learnt)), key=lambda c: (parts.learnt[c], -c))
    total = sum(parts.tested)
    return largest, parts.tested[largest] / total if total else 0.0


def seconds_of(times: Mapping[str, Any], names: Sequence[str]) -> float | None:
    """Seconds of some phases together, None where none of them was timed."""
    known = [float(times[name]) for name in names if isinstance(times.get(name), int | float)]
    return sum(known) if known else None


FEATURE_PHASES = ("features",)
TRAINING_PHASES = ("folds", "final fit")
INNER_PHASES = ("pictures", "training")  # timed inside the folds and the final fit


def phases(times: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of every phase, memory and the like left out."""
    return {
        name: float(value)
        for name, value in times.items()
        if isinstance(value, int | float) and not name.endswith(("_mib", "_bytes"))
    }


def total_seconds(times: Mapping[str, Any]) -> float:
    """Seconds of all phases, none counted twice."""
    return sum(value for name, value in phases(times).items() if name not in INNER_PHASES)


def time_in_all(record: Mapping[str, Any]) -> str:
    """'in all', or since when, where a run was killed on its way and kept no count of before."""
    return "since it was resumed" if record.get("times_lost") else "in all"


def option_words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as a command line takes them: '--seed', '3', '--no-strict'."""
    words: list[str] = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, str(value)]
    return words


def shell_words(command: Sequence[Any]) -> str:
    """The command as it can be pasted into a shell."""
    import shlex

    words = [str(word) for word in command]
    if words and words[0] in ("-c", "__main__.py", "-m"):  # started as a module
        words[0] = "headstart"
    return shlex.join(words)
