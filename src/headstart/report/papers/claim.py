"""The CLAIM 2024 checklist: what the run knows, what its author says, 'not provided' else.

Words follow CLAIM 2024: 'reference standard' for the labels, and never the bare word
'validation'. Titles are shortened from a secondary list; the journal's form is the one to hand in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headstart.report.judging.alarms import Alarm, shortcuts_of
from headstart.report.judging.decision import decision_sentence
from headstart.report.judging.facts import (
    count_parts,
    find_duplicates,
    follow_groups,
    shell_words,
    time_in_all,
    total_seconds,
)
from headstart.report.judging.mistakes import confused_pairs, scores_by
from headstart.report.reading import StoredRun
from headstart.report.wording import (
    counted,
    estimate,
    in_brackets,
    listed,
    metric_label,
    percent,
    times_text,
    with_interval,
)
from headstart.runs.files.record import leaks_of

NOT_PROVIDED = "not provided"
BY_RUN, BY_AUTHOR, BY_BOTH, BY_NOBODY = "run", "author", "run and author", ""
NOTICE = (
    "Items are shortened from a secondary list of the CLAIM 2024 update. Hand in the journal's own "
    "form: Radiology: Artificial Intelligence, doi:10.1148/ryai.240300."
)

SECTIONS: tuple[tuple[str, tuple[tuple[int, str], ...]], ...] = (
    ("Title and abstract", ((1, "Title names the use of artificial intelligence"),
                            (2, "Structured abstract"))),
    ("Introduction", ((3, "Background and clinical role"), (4, "Aims and hypotheses"))),
    ("Methods: study design", ((5, "Prospective or retrospective"), (6, "Study goal"))),
    ("Methods: data", (
        (7, "Data sources"), (8, "Eligibility"), (9, "Preprocessing"),
        (10, "Choice of subsets"), (11, "De-identification"), (12, "Missing data"),
        (13, "Image acquisition"))),
    ("Methods: reference standard", (
        (14, "Definition of the reference standard"), (15, "Why that reference standard"),
        (16, "Annotators"), (17, "How it was annotated"), (18, "Variability between raters"))),
    ("Methods: partitions", (
        (19, "How data went to partitions"), (20, "Level at which partitions are disjoint"),
        (21, "Intended test sample size"))),
    ("Methods: model", (
        (22, "Model"), (23, "Software and versions"), (24, "Initialisation"))),
    ("Methods: training", (
        (25, "Training"), (26, "How the final model was chosen"), (27, "Ensembling"))),
    ("Methods: evaluation", (
        (28, "Performance measures"), (29, "Their uncertainty"), (30, "Robustness"),
        (31, "Explainability"), (32, "Internal test"), (33, "External test"),
        (34, "Registration"))),
    ("Results: data", (
        (35, "Flow and numbers"), (36, "Demographics in each partition"))),
    ("Results: performance", (
        (37, "Performance in each partition and subgroup"),
        (38, "Accuracy with 95 % interval"), (39, "Failures"))),
    ("Discussion", ((40, "Limitations"), (41, "Implications"))),
    ("Other information", ((42, "Protocol"), (43, "Availability"), (44, "Funding"))),
)  # fmt: skip

# What the user may have set of a training, beside what the run chose.
TOLD_SETTINGS = (
    "trainable", "lr", "epochs", "batch_size", "optimizer", "weight_decay", "schedule",
    "augment", "class_weights", "hidden", "dropout", "views",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ClaimItem:
    """One item of the checklist.

    Attributes:
        number: 1 to 44.
        section: of a paper where it belongs.
        title: what it asks for, in short.
        answer: 'not provided' where neither run nor author knows.
        answered_by: 'run', 'author', 'run and author' or ''.
    """

    number: int
    section: str
    title: str
    answer: str
    answered_by: str


def claim_items(
    run: StoredRun, answers: Mapping[str, str], alarms: Sequence[Alarm]
) -> list[ClaimItem]:
    """All 44 items in order.

    Args:
        run: whose files answer.
        answers: of the author, by number as text.
        alarms: what was found, for the items on robustness.
    """
    items = []
    for section, titles in SECTIONS:
        for number, title in titles:
            own = FROM_RUN[number](run) if number in FROM_RUN else ""
            if number == 30:
                own = robustness(run, alarms)
            said = answers.get(str(number), "")
            by = {(True, True): BY_BOTH, (True, False): BY_RUN, (False, True): BY_AUTHOR}.get(
                (bool(own), bool(said)), BY_NOBODY
            )
            answer = "\n".join(part for part in (own, said) if part) or NOT_PROVIDED
            items.append(
                ClaimItem(
                    number=number, section=section, title=title, answer=answer, answered_by=by
                )
            )
    return items


def item_titles() -> list[tuple[int, str]]:
    """Number and title of every item."""
    return [pair for _, titles in SECTIONS for pair in titles]


def preprocessing(run: StoredRun) -> str:
    """Item 9."""
    stored = run.record.get("preprocessing") or {}
    treated = sorted({row["treatment"] for row in run.images if row.get("treatment")})
    size = stored.get("size", "?")
    whole = "the whole picture, its shape not kept" if stored.get("resize") == "squash" else ""
    resize = ", ".join(filter(None, [str(stored.get("resize", "")), whole]))
    done = f" Before that: {listed(treated, 5)}." if treated else ""
    views = run.record.get("views")
    if views:
        done += (
            f" The head was fitted on {views['learnt']} of each image to learn from; every answer "
            f"rests on {views['answers']}."
        )
    return (
        "Images were decoded to upright 8-bit RGB, resized to "
        f"{size} x {size} px ({resize}; {stored.get('interpolation', '')}, antialiased) and "
        f"normalised by the backbone's constants (mean {stored.get('mean')}, "
        f"standard deviation {stored.get('std')}).{done}"
    )


def partitions(run: StoredRun) -> str:
    """Item 19."""
    parts = count_parts(run)
    aside = sum(parts.kept)
    kept = f"{counted(aside, 'image')} for thresholds alone, " if aside else ""
    return (
        f"{counted(sum(parts.learnt), 'image')} for training in {folds_of(run)}, {kept}"
        f"{counted(sum(parts.tested), 'image')} for the internal test "
        f"({run.metrics['test'].get('origin', 'held out')}); seed {run.record.get('seed')}."
    )


def folds_of(run: StoredRun) -> str:
    """How the training part was folded, in words."""
    count = count_parts(run).num_folds
    scheme = str((run.record.get("splits") or {}).get("scheme") or "stratified")
    if scheme == "stratified":
        return f"{count} stratified folds"
    if scheme == "given":
        return f"{count} folds that were given"
    return f"{count} folds ({scheme.replace('-', ' ')})"


def level(run: StoredRun) -> str:
    """Item 20."""
    groups, twins = follow_groups(run), find_duplicates(run)
    leaks = ""
    if leaks_of(run.record) or twins.across:
        leaks = " Partitions are NOT disjoint: the same or nearly the same images stand in several."
    if not groups.total:
        return f"Image. No groups (patients) were given to the run.{leaks}"
    torn = list(groups.across or groups.aside or groups.folds)
    if torn:
        return f"Groups are not disjoint: {listed(torn)}.{leaks}"
    by = run.settings.get("group_by")
    how = f" ({by})" if by else ""
    return (
        f"Group{how}: {counted(groups.total, 'group')}, each whole in one part and one fold.{leaks}"
    )


def model(run: StoredRun) -> str:
    """Item 22."""
    backbone = run.record["backbone"]
    head = (run.record.get("choice") or {}).get("head", run.settings.get("head", "logistic"))
    return (
        f"{backbone['name']} ({backbone.get('architecture', '')}, "
        f"{backbone.get('num_parameters', 0):,} parameters, "
        f"{run.num_features:,} features){run.blocks}{run.layers}, a {head} head of "
        f"{len(run.class_names)} classes."
    )


def software(run: StoredRun) -> str:
    """Item 23."""
    listing = ", ".join(f"{name} {version}" for name, version in run.record["versions"].items())
    return f"{listing}; {run.record.get('machine', '')}; command: {command_of(run)}"


def command_of(run: StoredRun) -> str:
    """The command that made the run."""
    return shell_words(run.record.get("command") or [])


def initialisation(run: StoredRun) -> str:
    """Item 24."""
    weights = run.record["backbone"].get("weights") or {}
    if weights.get("source") == "none":
        return "Random weights, as asked."
    checksum = f", SHA-256 {weights['file_digest']}" if weights.get("file_digest") else ""
    return (
        f"Pretrained weights ({weights.get('source')}: {weights.get('origin')}{checksum}; licence: "
        f"{weights.get('licence')}); every fold and the final fit start afresh from them."
    )


def training(run: StoredRun) -> str:
    """Item 25."""
    choice = run.record.get("choice") or {}
    left_out = {"backbone", "head", "model_digest", "locked", "strategy"}
    if choice.get("head") != "logistic":
        left_out.add("gradient_tolerance")  # of the fit of logistic heads
    kept = {name: value for name, value in choice.items() if name not in left_out}
    given = {
        name: run.settings[name]
        for name in TOLD_SETTINGS
        if run.settings.get(name) not in (None, "", "none") and name not in kept
    }
    settings = ", ".join(f"{name} {value}" for name, value in (kept | given).items())
    strategy = run.settings.get("strategy") or "probe"
    how = (
        "the backbone stays frozen and the head is fitted on its features"
        if strategy == "probe"
        else f"strategy '{strategy}'"
    )
    engine = run.record.get("engine") or {}
    return (
        f"{how[:1].upper()}{how[1:]}; {settings}; {engine.get('device', '')} in "
        f"{engine.get('precision', '')}; seed {run.record.get('seed')}; "
        f"{total_seconds(run.record.get('times') or {}):.0f} s {time_in_all(run.record)}."
    )


def final_choice(run: StoredRun) -> str:
    """Item 26."""
    count = int((run.record.get("splits") or {}).get("inner_folds") or 1)
    if "penalty" not in (run.record.get("choice") or {}):
        count = 1  # epochs and what else is not a penalty are chosen on one part
    where = f"{count} inner folds" if count > 1 else "an inner part"
    return (
        f"Settings were chosen on {where} of every training fold (nested cross-validation), "
        "the final model was fitted once on the whole training part with what the folds agreed on, "
        "and locked before the test part was opened."
    )


def ensembling(run: StoredRun) -> str:
    """Item 27."""
    del run
    return "None: one model answers."


def measures(run: StoredRun) -> str:
    """Item 28."""
    names = [
        metric_label(name)
        for name, entry in run.metrics["test"]["figures"].items()
        if entry.get("value") is not None
    ]
    decided = run.metrics["test"].get("decision")
    about = ""
    if decided:
        about = (
            f" For '{decided['positive']}' sensitivity, specificity and predictive values at the "
            f"threshold {decided['threshold']:.4g} ({chosen_how(str(decided['rule']))})."
        )
    return f"{', '.join(names)}; precision, recall and F1 of every class; confusion matrix.{about}"


def chosen_how(rule: str) -> str:
    """Where a threshold comes from: a number was given beforehand, a rule chose out of fold."""
    try:
        float(rule)
    except ValueError:
        return f"{rule}, chosen out of fold"
    return "given beforehand"


def uncertainty(run: StoredRun) -> str:
    """Item 29."""
    methods = sorted(
        {entry["method"] for entry in run.metrics["test"]["figures"].values() if entry["method"]}
    )
    note = run.metrics["cross_validation"].get("note", "")
    return (
        f"95 % intervals on the test images ({', '.join(methods)}). Cross-validated figures are "
        f"{note}."
    )


def robustness(run: StoredRun, alarms: Sequence[Alarm]) -> str:
    """Item 30."""
    asked = []
    battery = shortcuts_of(run)
    if battery:
        asked.append(f"shortcuts ({listed([entry['name'] for entry in battery], 8)})")
    outliers = run.measured("outliers")
    if any(outliers.get(name) for name in ("classes_left_out", "far", "auroc")):
        asked.append("images unlike the training images")
    sources = {row.get("source") for row in run.splits} - {"", None}
    if len(sources) > 1:
        asked.append(f"{len(sources)} sources")
    loud = [alarm.title for alarm in alarms if alarm.level == "alarm"]
    found = f" Found: {listed(loud, 5)}." if loud else ""
    if not asked:
        return f"Not examined by this run.{found}"
    return f"Examined: {'; '.join(asked)}.{found}"


def internal_test(run: StoredRun) -> str:
    """Item 32."""
    tested = run.metrics["test"]
    return (
        f"{counted(tested['num_images'], 'image')} ({tested.get('origin', 'held out')}), opened "
        f"{times_text(run.record['test_openings'])}."
    )


def flow(run: StoredRun) -> str:
    """Item 35."""
    data, parts = run.record["data"], count_parts(run)
    aside = any(parts.kept)
    rows = zip(run.class_names, parts.learnt, parts.kept, parts.tested, strict=True)
    classes = "; ".join(
        f"{name}: {learnt} training, {f'{kept} for thresholds, ' * aside}{tested} test"
        for name, learnt, kept, tested in rows
    )
    for_thresholds = f"{sum(parts.kept):,} for thresholds alone, " * aside
    return (
        f"{counted(data['num_images'], 'image')} found, {data.get('num_left_out', 0)} unreadable "
        f"and left out, {sum(parts.learnt):,} for training, {for_thresholds}"
        f"{sum(parts.tested):,} for the test. "
        f"{classes}."
    )


def performance(run: StoredRun) -> str:
    """Item 37."""
    lines = [
        f"{word}: "
        + ", ".join(
            f"{metric_label(name)} {with_interval(entry, name)}"
            for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc")
            if (entry := run.figure(part, name))
        )
        for part, word in (("cross_validation", "Cross-validation"), ("test", "Internal test"))
    ]
    if decided := decision_sentence(run):
        lines.append(f"Internal test: {decided.rstrip('.')}")
    recalls = ", ".join(
        f"{entry['class']} {percent(estimate(entry.get('recall'))['value'])}"
        for entry in run.per_class
    )
    if recalls:
        lines.append(f"Recall by class (internal test): {recalls}")
    lines += by_subgroup(run)
    sources = []
    if run.tested is not None:
        sources = scores_by("source", run.tested, run.splits, run.images)
    if len(sources) > 1:
        by = ", ".join(f"{s.name} {percent(s.accuracy)} of {s.num_images}" for s in sources)
        lines.append(f"Accuracy by source (internal test): {by}")
    return ". ".join(lines) + "."


def demographics(run: StoredRun) -> str:
    """Item 36, where the run was told of columns that say such things."""
    lines = []
    for entry in run.metrics["test"].get("subgroups") or []:
        told = "; ".join(
            f"{part['name']}: {part['counts']['train']} training, {part['counts']['test']} test"
            for part in entry["parts"]
        )
        lines.append(f"By {entry['column']}: {told}")
    return ". ".join(lines) + "." * bool(lines)


def by_subgroup(run: StoredRun) -> list[str]:
    """Accuracy, and the decision's figures, of every value of every column."""
    lines = []
    for entry in run.metrics["test"].get("subgroups") or []:
        told = "; ".join(
            f"{part['name']} "
            + ", ".join(
                f"{name} {in_brackets(part[name])}"
                for name in ("accuracy", "sensitivity", "specificity")
                if estimate(part.get(name))["value"] is not None
            )
            for part in entry["parts"]
            if part["counts"]["test"]
        )
        lines.append(f"By {entry['column']} (internal test): {told}")
    return lines


def accuracy(run: StoredRun) -> str:
    """Item 38."""
    text = f"Internal test: {with_interval(run.figure('test', 'accuracy'))}."
    return " ".join(part for part in (text, decision_sentence(run)) if part)


def failures(run: StoredRun) -> str:
    """Item 39."""
    if run.tested is None:
        return ""
    pairs = confused_pairs(run.tested)
    if not pairs:
        return "No test image was answered wrongly."
    told = "; ".join(f"{p.true} taken for {p.predicted}: {p.count}" for p in pairs)
    return f"Most frequent mistakes on the internal test: {told}. Images are in predictions.csv."


FROM_RUN: dict[int, Callable[[StoredRun], str]] = {
    9: preprocessing, 19: partitions, 20: level, 22: model, 23: software, 24: initialisation,
    25: training, 26: final_choice, 27: ensembling, 28: measures, 29: uncertainty,
    32: internal_test, 35: flow, 36: demographics, 37: performance, 38: accuracy, 39: failures,
}  # fmt: skip
