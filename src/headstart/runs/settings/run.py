"""What a user decides about a run; validated when made."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones import AUTO, WEIGHT_CHOICES, check_layers
from headstart.data import DATASETS
from headstart.data.views import check_tta, parse_views
from headstart.errors import UsageError
from headstart.heads import CLASS_WEIGHTS, HEADS, MlpSettings, draw_settings
from headstart.runs.settings.decisions import check_decision_settings
from headstart.runs.settings.splits import check_inner_settings, check_split_settings
from headstart.runs.settings.training import ONLY_TRAINING, numbers, train_settings

# Settings that name places or ways of working; a run may be resumed with others.
NOT_COMPARED = ("out", "strict", "profile")
# Settings that may be paths, and the names that win over a path of the same spelling.
NAMES = {
    "data": DATASETS.names(), "test_data": [], "splits": [], "weights": list(WEIGHT_CHOICES),
    "ood_data": DATASETS.names(),
}  # fmt: skip
# Settings that are numbers with commas between; from Python a number or a sequence will do.
LISTS = ("folds", "hidden", "dropout", "epochs", "threshold", "prevalence", "layers")
AUDITS = ("auto", "full", "none")
PROBE = "probe"
CHOICES = ("class_weights", "device", "precision", "pass_engine", "sets")
STEP_SETTINGS = ("hidden", "dropout", "lr", "epochs", "batch_size")
# Of these `tune` varies what is not given.
TUNED = ("hidden", "dropout", "lr")
# Settings that are of one head or strategy: with another one they start from its defaults.
ONLY_PROBE = ("views", "tta", "layers")
DEPENDENT = {
    "head": ("tune", *STEP_SETTINGS),
    "strategy": ("tune", *STEP_SETTINGS, *ONLY_TRAINING, *ONLY_PROBE),
}
WORDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of the main job.

    Attributes:
        data: a folder of class folders, or the name of a built-in data set.
        test_data: a folder of test images, None to take `data`'s own or hold some out.
        model: name of the backbone.
        strategy: 'probe' keeps the backbone frozen; the others fine-tune it.
        head: name of the head on frozen features.
        hidden: widths of hidden layers, as in '512,64': of an 'mlp' head, or of a new head to
            fine-tune with; None for its own.
        tune: settings of an mlp head to try: every fold keeps its best on its inner part, by
            successive halving; what is given of `hidden`, `dropout` and `lr` stays as it is.
        dropout: before every dense layer, as in '0.4' or '0.4,0.3'.
        lr: learning rate of what is trained by steps; None for its own.
        epochs: passes over the training part, a number a phase as in '8,6'; None for its own.
        batch_size: images a step; None for its own.
        head_blocks: layers between the backbone's last map and its features, which learn with
            the head: 'se', 'eca', 'channel', 'spatial', 'cbam', or a list such as 'se:8,spatial'.
        pool: 'mean', 'max' or 'flatten' of that map instead of the network's 'own' ending.
        trainable: what fine-tuning changes: 'all', 'none', 'stages:N', 'layers:N', 'after:N'.
        augment: a policy of augmentation, or a list such as 'flip:0.5,rotate:12:0.5'.
        optimizer: of fine-tuning.
        schedule: of its learning rate.
        patience: epochs without improvement before a phase ends; 0 never ends it.
        monitor: the metric of the inner part that chooses the epoch.
        compile: compile the part of the network that learns.
        train: further settings of fine-tuning, as in 'momentum=0.8,clip_norm=1'.
        class_weights: 'none' or 'balanced', every class of the same weight in training.
        views: of the images learnt from, which a head on frozen features is fitted on beside the
            whole pictures: 'flip', 'crops:4' or 'flip,crops:4'; None for none.
        tta: 'flip' averages every answer over the picture and its mirror image; None does not.
        layers: stages whose features a head on a frozen network takes side by side: names as in
            'stage3,head', a number counted from the last, 'auto' for as many as the inner rows of
            each fold like best; None for the network's own features.
        folds: number of cross-validation folds, 'leave-one-group-out' or 'leave-one-source-out'.
        inner_folds: parts of a fold's training part that choose the penalty of a logistic head in
            turn, each held out from fits of its own; 1 holds one part out.
        num_penalties: how many are tried.
        ratio: shares of train/test or train/val/test, as in '70/15/15', instead of
            `test_fraction`; the val share chooses settings inside every fold.
        splits: parts and folds to take: the `splits.csv` of a run, or its folder.
        test_fraction: share held out as test part where the data bring none.
        weights: 'auto', 'bundled', 'hub', 'none' or a file.
        image_size: input size in px, None for the network's own.
        group_by: a column of the data, or a regular expression on the path, whose equal values
            stay on one side of every split.
        columns: names of a manifest's columns where they are unusual, as in 'label=finding'.
        crop_margin: added around boxes on every side, as a share of the box.
        max_images: take a sample of about so many, every class and split in its share.
        audit: 'auto' looks for duplicates, leaks and shortcuts in up to 20,000 images, 'full' in
            all, 'none' never.
        allow_leaks: go on where the data's own split has images on both sides; it is stamped.
        learning_curve: also score parts of the training images.
        positive: the class that a decision is about, against all others.
        threshold: its operating threshold, chosen on out-of-fold answers: 'youden',
            'sensitivity:0.95', 'specificity:0.9', 'cost:5' (a missed positive costs five false
            alarms), or a probability; None for 0.5.
        prevalence: shares of the positive class where the model is to be used, as in '0.05' or
            '0.01,0.05', for predictive values there; the first one also weighs costs.
        calibration_split: share of the training part that is kept aside, groups whole, to set the
            thresholds of prediction sets and of strangeness on; None sets them out of fold.
        sets: 'marginal' for sets that hold the truth in so many cases over all, 'by-class' for so
            many of every class.
        alpha: share of sets that may miss the truth.
        subgroups: columns of the data by whose values the test part is judged too, as in
            'sex,age'.
        ood_data: pictures of other things, to judge on whether they are told to be unknown.
        seed: every random choice hangs on it.
        out: folder of the run.
        profile: write down where the seconds went.
        strict: stop at the first list of unreadable files instead of leaving them out.
        device: 'auto', 'cpu', 'cuda' or 'mps'.
        precision: 'auto', 'bfloat16' or 'float32'.
        pass_engine: of the pass over all images: 'auto', 'eager' (PyTorch) or 'openvino'.
    """

    data: str
    out: str
    test_data: str | None = None
    model: str = "mini"
    strategy: str = "probe"
    head: str = "logistic"
    tune: int | None = None
    hidden: str | None = None
    dropout: str | None = None
    lr: float | None = None
    epochs: str | None = None
    batch_size: int | None = None
    head_blocks: str | None = None
    pool: str | None = None
    trainable: str | None = None
    augment: str | None = None
    optimizer: str | None = None
    schedule: str | None = None
    patience: int | None = None
    monitor: str | None = None
    compile: bool | None = None
    train: str | None = None
    class_weights: str = "none"
    views: str | None = None
    tta: str | None = None
    layers: str | None = None
    folds: str = "5"
    inner_folds: int = 1
    num_penalties: int = 10
    ratio: str | None = None
    splits: str | None = None
    test_fraction: float = 0.2
    weights: str = "auto"
    image_size: int | None = None
    group_by: str | None = None
    columns: str | None = None
    crop_margin: float = 0.0
    max_images: int | None = None
    audit: str = "auto"
    allow_leaks: bool = False
    learning_curve: bool = True
    positive: str | None = None
    threshold: str | None = None
    prevalence: str | None = None
    calibration_split: float | None = None
    sets: str = "marginal"
    alpha: float = 0.1
    subgroups: str | None = None
    ood_data: str | None = None
    seed: int = 0
    profile: bool = False
    strict: bool = False
    device: str = "auto"
    precision: str = "auto"
    pass_engine: str = "auto"

    def __post_init__(self) -> None:
        """Bring every value to its type, and check what needs no image."""
        for field in dataclasses.fields(self):
            kind = str(field.type)
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, of_type(field.name, kind, value))
        check_split_settings(self.folds, self.test_fraction, self.ratio, self.splits)
        check_inner_settings(self.inner_folds, self.num_penalties, self.ratio)
        if not 0 <= self.seed < 2**32:
            raise UsageError(
                f"`seed` must be between 0 and {2**32 - 1}, got {self.seed}. Correct --seed."
            )
        if self.max_images is not None and self.max_images < 1:
            raise UsageError(
                f"`max_images` must be at least 1, got {self.max_images}. "
                "Leave --max-images out to take all."
            )
        if not 0 <= self.crop_margin <= 1:
            raise UsageError(
                f"`crop_margin` must be between 0 and 1, got {self.crop_margin}: it is a share of "
                "the box. Correct --crop-margin."
            )
        object.__setattr__(self, "audit", self.audit.casefold())
        if not self.data.strip():
            raise UsageError("`data` must not be empty. Name a folder, a manifest or 'digits'.")
        if self.audit not in AUDITS:
            raise UsageError(
                f"`audit` must be {', '.join(AUDITS)}, got '{self.audit}'. Correct --audit."
            )
        # Names are matched without regard to case; the record keeps them as they are registered.
        object.__setattr__(self, "head", HEADS.get(self.head).name)
        object.__setattr__(self, "strategy", strategy_name(self.strategy))
        for name in CHOICES:
            object.__setattr__(self, name, getattr(self, name).casefold())
        parse_views(self.views, self.seed)
        object.__setattr__(self, "tta", check_tta(self.tta))
        if self.layers is not None:
            object.__setattr__(self, "layers", check_layers(self.layers))
        check_training(self)
        check_decision_settings(self)

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, for `run.json`."""
        return dataclasses.asdict(self)

    def compared(self) -> dict[str, Any]:
        """The settings that must be the same when a run is resumed, paths made absolute."""
        return {k: v for k, v in self.stored().items() if k not in NOT_COMPARED}

    def stored(self) -> dict[str, Any]:
        """The settings as records keep them, paths made absolute so that a run can be repeated."""
        kept = self.as_dict()
        for name, names in NAMES.items():
            kept[name] = absolute_if_path(kept[name], names)
        return kept


def is_logistic_probe(settings: Mapping[str, Any]) -> bool:
    """Whether a run's model is what its learning curve is drawn for."""
    return (settings.get("strategy") or PROBE, settings.get("head") or "logistic") == (
        PROBE, "logistic",
    )  # fmt: skip


def strategy_name(name: str) -> str:
    """The registered name of a strategy; the probe, which is no training, needs no such room.

    Raises:
        UnknownNameError: there is none.
    """
    if name.casefold() == PROBE:
        return PROBE
    from headstart.finetune import STRATEGIES

    return STRATEGIES.get(name).name


def check_training(settings: RunSettings) -> None:
    """Refuse what the chosen strategy and head would pass over in silence.

    Raises:
        UsageError: one such, or a value that cannot be.
    """
    if settings.class_weights not in CLASS_WEIGHTS:
        raise UsageError(
            f"`class_weights` must be {' or '.join(CLASS_WEIGHTS)}, got "
            f"'{settings.class_weights}'. Correct --class-weights."
        )
    if settings.tune is not None:
        if settings.strategy != PROBE or settings.head != "mlp":
            other = settings.head if settings.strategy == PROBE else settings.strategy
            raise UsageError(
                f"`tune` chooses settings of an mlp head on frozen features, and means nothing to "
                f"'{other}'. Take --head mlp, or leave --tune out."
            )
        settings_to_try(settings)
    if settings.strategy != PROBE:
        if settings.head != "logistic":
            raise UsageError(
                f"`head` must be left out when fine-tuning, got '{settings.head}'. Layers of a new "
                "head are named by --hidden."
            )
        refuse_only_probe(settings)
        train_settings(settings)
        return
    if settings.layers == AUTO and settings.head != "logistic":
        raise UsageError(
            f"`layers` can be 'auto' for a logistic head alone, got the head '{settings.head}'. "
            "Give --layers a number or names, or take --head logistic."
        )
    unused: tuple[str, ...] = ONLY_TRAINING
    why = "the strategy 'probe', which keeps the backbone frozen. Choose another --strategy"
    if settings.head == "mlp":
        mlp_settings(settings)
    elif not any(getattr(settings, name) is not None for name in unused):
        unused = STEP_SETTINGS
        why = f"the {settings.head} head, which is fitted to its optimum. Take --head mlp"
    given = [name for name in unused if getattr(settings, name) is not None]
    if given:
        flag = given[0].replace("_", "-")
        raise UsageError(f"`{given[0]}` means nothing to {why}, or leave --{flag} out.")


def refuse_only_probe(settings: RunSettings) -> None:
    """Refuse what is of frozen features where the network learns.

    Raises:
        UsageError: such a thing was asked for.
    """
    for name in ONLY_PROBE:
        if getattr(settings, name) is not None:
            pictures = "" if name == "layers" else "; fine-tuning changes its pictures by --augment"
            raise UsageError(
                f"`{name}` is of the strategy 'probe', whose features stay, got "
                f"'{getattr(settings, name)}' with '{settings.strategy}'. Leave --{name} out"
                f"{pictures}."
            )


def mlp_settings(settings: RunSettings) -> MlpSettings:
    """The settings of an mlp head, its own where the run's leave them open.

    Raises:
        UsageError: a value that cannot be.
    """
    chosen = {
        "hidden": numbers(settings.hidden, int, "hidden"),
        "dropout": single(settings.dropout, float, "dropout"),
        "epochs": single(settings.epochs, int, "epochs"),
        "lr": settings.lr,
        "batch_size": settings.batch_size,
    }
    return MlpSettings(**{name: value for name, value in chosen.items() if value is not None})


def settings_to_try(settings: RunSettings) -> tuple[MlpSettings, ...]:
    """The settings of an mlp head that `tune` asks for, the run's own first.

    Raises:
        UsageError: fewer than two, or more than there are.
    """
    assert settings.tune is not None
    given = {name for name in TUNED if getattr(settings, name) is not None}
    base = mlp_settings(settings)
    return draw_settings(base, settings.tune, fixed=frozenset(given), seed=settings.seed)


def single(text: str | None, kind: type, name: str) -> Any:
    """The one number that a text holds, None where it is none.

    Raises:
        UsageError: several, or something else.
    """
    found = numbers(text, kind, name)
    if found is None or len(found) == 1:
        return found and found[0]
    raise UsageError(
        f"`{name}` must be one number for an mlp head, got '{text}'. Correct --{name}."
    )


def absolute_if_path(value: str | None, names: Sequence[str]) -> str | None:
    """The absolute form of an existing path; one of `names`, or anything else, as it is."""
    if value is None or value in names or not Path(value).exists():
        return value
    return os.path.abspath(value)


def of_type(name: str, kind: str, value: object) -> object:
    """A setting as its annotation wants it: paths as text, NumPy's numbers as Python's.

    Args:
        name: the setting, for the message.
        kind: 'str', 'int', 'float' or 'bool', and '| None' where it may be left open.
        value: what the caller gave.

    Raises:
        UsageError: it is of another type.
    """
    if value is None and kind.endswith("| None"):
        return None
    wanted = kind.removesuffix(" | None")
    try:
        if name in LISTS and not isinstance(value, str):
            return as_list(value)
        if wanted == "str" and isinstance(value, str | os.PathLike):
            return os.fspath(value)
        if wanted == "int" and not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type]
        if wanted == "float" and not isinstance(value, str | bool):
            return float(value)  # type: ignore[arg-type]
        if wanted == "bool" and isinstance(value, bool):
            return value
    except TypeError as error:
        reason: TypeError | None = error
    else:
        reason = None
    raise UsageError(
        f"`{name}` must be {WORDS[wanted]}, got {value!r} ({type(value).__name__}). Correct it."
    ) from reason


def stored_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Some settings as records keep them: of their types, paths made absolute.

    Args:
        given: by name; one that is no setting stays as it is, to be refused elsewhere.

    Raises:
        UsageError: one is of another type.
    """
    kinds = {one.name: str(one.type) for one in dataclasses.fields(RunSettings)}
    found = {}
    for name, value in given.items():
        kept = of_type(name, kinds[name], value) if name in kinds else value
        if name in NAMES and isinstance(kept, str):
            kept = absolute_if_path(kept, NAMES[name])
        found[name] = kept
    return found


def as_list(value: object) -> str:
    """8 -> '8', (8, 6) -> '8,6'.

    Raises:
        TypeError: neither a number nor a sequence of numbers.
    """
    parts = list(value) if isinstance(value, Sequence | np.ndarray) else [value]
    if not parts or any(isinstance(p, bool | str) or not isinstance(p, Real) for p in parts):
        raise TypeError("numbers are wanted")
    return ",".join(str(part) for part in parts)


def settings_from(stored: dict[str, Any], **changes: Any) -> RunSettings:
    """Settings as a `run.json` keeps them, some of them changed.

    Raises:
        UsageError: the file names a setting that this version does not know.
    """
    known = {field.name for field in dataclasses.fields(RunSettings)}
    unknown = sorted(set(stored) - known)
    if unknown:
        raise UsageError(
            f"The run was written with settings unknown to this version: {', '.join(unknown)}. "
            "Update Headstart."
        )
    kept = dict(stored)
    for name, dependent in DEPENDENT.items():
        if name in changes and changes[name] != stored.get(name):
            kept |= dict.fromkeys(set(dependent) - set(changes))  # they were of the other one
    return RunSettings(**{**kept, **changes})
