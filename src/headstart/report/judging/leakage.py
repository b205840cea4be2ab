"""The leakage table: the eight types of Kapoor & Narayanan, answered from what the run did.

A type is 'ruled out' only where the run's own files show it; what no file can show is 'unknown',
and the author has to argue it.

S. Kapoor and A. Narayanan, Leakage and the reproducibility crisis in machine-learning-based
science, Patterns 4 (2023), doi:10.1016/j.patter.2023.100804.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headstart.report.judging.alarms import AUDIT_TITLES, shortcuts_of
from headstart.report.judging.facts import count_parts, find_duplicates, follow_groups
from headstart.report.reading import AUDIT, StoredRun
from headstart.report.wording import counted, listed, times_text

RULED_OUT, FOUND, UNKNOWN, NOT_APPLICABLE = "ruled out", "found", "unknown", "not applicable"
SOURCE = "Types after Kapoor & Narayanan, Patterns 4 (2023), doi:10.1016/j.patter.2023.100804."


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One type of leakage.

    Attributes:
        code: 'L1.1' and so on.
        kind: what the type is called.
        question: what to ask.
        answer: 'ruled out', 'found', 'unknown' or 'not applicable'.
        evidence: how the run knows, or why it cannot.
    """

    code: str
    kind: str
    question: str
    answer: str
    evidence: str


def leakage_table(run: StoredRun) -> list[Leak]:
    """All types in order; `leakage` of `metrics.json` (code to answer and evidence) wins."""
    stored = run.metrics.get("leakage") or {}
    table = []
    for code, kind, question, judge in TYPES:
        answer, evidence = judge(run)
        own = stored.get(code) if isinstance(stored, dict) else None
        if isinstance(own, dict):
            answer = str(own.get("answer", answer))
            evidence = str(own.get("evidence", evidence))
        table.append(
            Leak(code=code, kind=kind, question=question, answer=answer, evidence=evidence)
        )
    return table


def no_test_set(run: StoredRun) -> tuple[str, str]:
    """L1.1."""
    tested = sum(count_parts(run).tested)
    origin = run.metrics["test"].get("origin", "held out")
    openings = run.record["test_openings"]
    looked = times_text(openings)
    locked = (run.record.get("choice") or {}).get("locked")
    when = f"after the choice was locked ({locked})" if locked else "at the end"
    if openings > 1:
        return FOUND, f"The test part ({origin}) was opened {looked}, so it was no fresh one."
    return RULED_OUT, f"{counted(tested, 'image')} ({origin}), opened {looked}, {when}."


def preprocessing_together(run: StoredRun) -> tuple[str, str]:
    """L1.2."""
    size = (run.record.get("preprocessing") or {}).get("size")
    pixels = f" ({size} px)" if size else ""
    return (
        RULED_OUT,
        f"Resizing and normalisation{pixels} are constants of the backbone, nothing is estimated "
        "from images that are scored; scales of features come from each fold's training rows.",
    )


def selection_together(run: StoredRun) -> tuple[str, str]:
    """L1.3."""
    chosen = [
        name for name in ("layers", "penalty", "epochs") if name in (run.record.get("choice") or {})
    ]
    what = f"The final {listed(chosen)}" if chosen else "Every setting of the fit"
    return (
        RULED_OUT,
        f"{what} was chosen on inner parts of the training folds; neither the scored part of a "
        "fold nor the test part took part.",
    )


def duplicates(run: StoredRun) -> tuple[str, str]:
    """L1.4."""
    twins = find_duplicates(run)
    codes = [str(entry.get("code", "")) for entry in run.findings]
    audited = (run.folder / AUDIT).exists()
    crossing = [code for code in codes if code in ("leak-exact", "leak-near")]
    if twins.across:
        return FOUND, f"{counted(len(twins.across), 'test image')} also in the training part."
    if crossing:
        return FOUND, f"The audit found them ({listed(crossing)}); see the warnings."
    if not twins.known:
        return UNKNOWN, "The run kept no digests of its images."
    exact = "No image of the test part has the bytes of a training image"
    if audited:
        return RULED_OUT, f"{exact}, and the audit found no near-duplicates across the parts."
    return UNKNOWN, f"{exact}; near-duplicates (rescaled, cropped) were not looked for."


def illegitimate_features(run: StoredRun) -> tuple[str, str]:
    """L2."""
    battery = shortcuts_of(run)
    suspicious = [
        AUDIT_TITLES[str(entry["code"])]
        for entry in run.findings
        if entry.get("code") in ("label-file-facts", "label-border", "sources-coincide")
        and entry.get("severity") != "note"
    ]
    if suspicious:
        return FOUND, f"The audit says: {listed(suspicious)}."
    if not battery:
        return UNKNOWN, "The run did not ask what beside the content gives the labels away."
    loud = [entry["name"] for entry in battery if entry["alarm"]]
    if loud:
        return FOUND, f"The labels can be told from {listed(loud)}."
    asked = listed([entry["name"] for entry in battery], 6)
    return RULED_OUT, f"No alarm from what was asked: {asked}."


def temporal(run: StoredRun) -> tuple[str, str]:
    """L3.1."""
    del run
    return UNKNOWN, "The run knows no dates. Not applicable where the model predicts no future."


def not_independent(run: StoredRun) -> tuple[str, str]:
    """L3.2."""
    groups = follow_groups(run)
    if groups.across or groups.folds:
        torn = listed(list(groups.across or groups.folds))
        return FOUND, f"Groups on both sides of a split: {torn}."
    if groups.total:
        return (
            RULED_OUT,
            f"{counted(groups.total, 'group')}, each whole in one part and one fold "
            f"({run.settings.get('group_by') or 'from the data'}).",
        )
    return UNKNOWN, "No groups were given. If several images show one thing, name it (--group-by)."


def sampling_bias(run: StoredRun) -> tuple[str, str]:
    """L3.3."""
    origin = run.metrics["test"].get("origin", "held out")
    return (
        UNKNOWN,
        f"The test part ({origin}) stands for this collection of images. Whether the collection "
        "stands for where the model will be used, only its author can say.",
    )


def seen_in_pretraining(run: StoredRun) -> tuple[str, str]:
    """Not among the eight types, but of every transfer."""
    weights = run.record["backbone"].get("weights") or {}
    if weights.get("source") == "none":
        return NOT_APPLICABLE, "The network began with random weights."
    return (
        UNKNOWN,
        f"The weights ({weights.get('origin') or weights.get('source', 'unknown')}) were trained "
        "on other pictures; whether test images are among them was not examined.",
    )


Judge = Callable[[StoredRun], tuple[str, str]]
TYPES: tuple[tuple[str, str, str, Judge], ...] = (
    ("L1.1", "No test set", "Was there a test part that nothing was learnt or chosen on?",
     no_test_set),
    ("L1.2", "Preprocessing on training and test set",
     "Was anything in the preprocessing estimated from test images?", preprocessing_together),
    ("L1.3", "Selection on training and test set",
     "Were features or settings chosen with the help of test images?", selection_together),
    ("L1.4", "Duplicates", "Is an image in both parts?", duplicates),
    ("L2", "Illegitimate features", "Does something beside the content give the label away?",
     illegitimate_features),
    ("L3.1", "Temporal leakage", "Does training know what came after the test images?", temporal),
    ("L3.2", "Training and test not independent",
     "Do images of one patient, object or video stand in both parts?", not_independent),
    ("L3.3", "Sampling bias of the test set",
     "Is the test part drawn from where the model will be used?", sampling_bias),
    ("+", "Seen in pretraining", "Did the backbone see test images before?", seen_in_pretraining),
)  # fmt: skip
