"""Everything a user can decide about training, in one frozen record, checked when made."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.errors import UsageError
from headstart.finetune.strategies import STRATEGIES, parse_trainable
from headstart.metrics import METRICS

OPTIMIZERS = ("adamw", "adam", "sgd", "rmsprop", "adagrad")
SCHEDULES = ("cosine", "constant", "one-cycle", "step", "plateau", "inverse")
CLASS_WEIGHTS = ("none", "balanced")
SAMPLINGS = ("shuffled", "balanced")
AVERAGES = ("none", "ema", "swa")
CACHE_CHOICES = ("auto", "off")
METRIC_ALIASES = {"loss": "log_loss", "top3": "top3_accuracy", "top5": "top5_accuracy"}
LATER_LR_FACTOR = 0.1
DEFAULT_CACHE_BYTES = 8 * 2**30


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a network is trained.

    Attributes:
        strategy: a registered name.
        trainable: 'all', 'none', 'stages:N', 'layers:N', 'after:N', 'N'; '' takes the strategy's.
        epochs: planned epochs a phase; the last number holds for further phases.
        lr: learning rate of the first phase, at the last stage.
        later_lr: of the phases after it; None takes a tenth of `lr`.
        head_lr_factor: the head's rate over the phase's.
        stage_decay: rate of a stage over that of the next one.
        freeze_norms: normalisation layers neither learn nor update their statistics.
        optimizer: one of `OPTIMIZERS`.
        momentum: of sgd and rmsprop.
        beta1: of adam and adamw.
        beta2: of adam and adamw.
        rho: of rmsprop, the memory of squared gradients.
        weight_decay: of weights; biases and normalisation layers have none.
        schedule: one of `SCHEDULES`.
        warmup_fraction: share of a phase's steps in which the rate rises (cosine, one-cycle).
        step_epochs: epochs between drops of 'step'.
        schedule_factor: what 'step' and 'plateau' multiply the rate by.
        plateau_patience: epochs without improvement before 'plateau' drops the rate.
        inverse_decay: of 'inverse': rate / (1 + inverse_decay * step).
        batch_size: images a forward pass.
        accumulate: forward passes a step of the optimizer.
        clip_norm: longest gradient; 0 clips nothing.
        patience: epochs without improvement before a phase ends; 0 never ends it.
        monitor: 'loss', 'accuracy', 'top3' or any registered metric.
        label_smoothing: share of the target spread over all classes.
        focal_gamma: focus on hard images (Lin et al., 2017); 0 is cross-entropy.
        class_weights: 'balanced' weighs images by the inverse frequency of their class.
        sampling: 'shuffled' shows every image once an epoch; 'balanced' draws as many with
            replacement, every class equally often in expectation.
        mixup: alpha of MixUp (Zhang et al., 2018); 0 is off.
        cutmix: alpha of CutMix (Yun et al., 2019); 0 is off. With both, each takes half the steps.
        augmentation: a policy's name or a list, see `headstart.finetune.batches.augmentation`.
        views: so many augmented views an image are replayed, so that they can be cached; 0 draws
            a new one every epoch.
        average: 'ema' or 'swa' of the weights.
        ema_decay: memory of 'ema', a step.
        swa_fraction: share of the last phase after which 'swa' begins to average epochs.
        hidden: widths of the dense layers of a new head.
        dropout: before each dense layer of the head; the last number holds for further ones.
        spatial_dropout: share of the channels of the last feature map that are left out of a
            step (Tompson et al., 2015), before the last stage, which pools it.
        cache: 'auto' keeps the activations of frozen stages where they do not change.
        cache_bytes: most bytes of that cache.
        auxiliary: weight of the losses of GoogLeNet's auxiliary heads; None takes 0.3 where it
            learns from scratch and leaves them out else.
        compile: compile the learning part of the network.
        profile: wait for a GPU at every clock, so that the seconds of a step's parts are exact.
        stop_after: epochs a phase really runs, the schedule as planned; None runs all.
        drop_after: epochs of each phase after which 'plateau' drops the rate, whatever the losses;
            None watches these.
        seed: of everything random.
    """

    strategy: str = "partial"
    trainable: str = ""
    epochs: tuple[int, ...] = (10,)
    lr: float = 1e-4
    later_lr: float | None = None
    head_lr_factor: float = 1.0
    stage_decay: float = 1.0
    freeze_norms: bool = False
    optimizer: str = "adamw"
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    rho: float = 0.99
    weight_decay: float = 1e-2
    schedule: str = "cosine"
    warmup_fraction: float = 0.1
    step_epochs: int = 10
    schedule_factor: float = 0.1
    plateau_patience: int = 5
    inverse_decay: float = 0.0
    batch_size: int = 32
    accumulate: int = 1
    clip_norm: float = 0.0
    patience: int = 5
    monitor: str = "log_loss"
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: str = "none"
    sampling: str = "shuffled"
    mixup: float = 0.0
    cutmix: float = 0.0
    augmentation: str = "none"
    views: int = 0
    average: str = "none"
    ema_decay: float = 0.99
    swa_fraction: float = 0.75
    hidden: tuple[int, ...] = ()
    dropout: tuple[float, ...] = (0.0,)
    spatial_dropout: float = 0.0
    cache: str = "auto"
    cache_bytes: int = DEFAULT_CACHE_BYTES
    auxiliary: float | None = None
    compile: bool = False
    profile: bool = False
    stop_after: tuple[int, ...] | None = None
    drop_after: tuple[tuple[int, ...], ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: one that cannot be.
        """
        STRATEGIES.get(self.strategy)
        METRICS.get(self.monitored)
        if self.trainable not in ("", "all", "none"):
            parse_trainable(self.trainable)
        self._check_choices()
        self._check_numbers()
        if not self.epochs or min(self.epochs) < 1:
            given = ", ".join(map(str, self.epochs)) or "none"
            raise UsageError(
                f"`epochs` must be one number a phase, each 1 or more, got {given}. "
                "Correct --epochs."
            )
        if min(self.hidden, default=1) < 1:
            raise UsageError(
                f"`hidden` must be widths of 1 or more, got "
                f"{', '.join(map(str, self.hidden))}. Correct it."
            )
        from headstart.finetune.batches.augmentation import parse_policy

        parse_policy(self.augmentation)

    def _check_choices(self) -> None:
        choices = {
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
            "class_weights": CLASS_WEIGHTS,
            "sampling": SAMPLINGS,
            "average": AVERAGES,
            "cache": CACHE_CHOICES,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UsageError(
                    f"`{name}` must be one of {', '.join(known)}, got '{getattr(self, name)}'. "
                    "Correct it."
                )
        if self.sampling == self.class_weights == "balanced":
            raise UsageError(
                "`class_weights` must be 'none' where `sampling` is 'balanced', got 'balanced': "
                "rare classes would count twice. Drop one of them."
            )

    def _check_numbers(self) -> None:
        above_zero = ("lr", "head_lr_factor", "stage_decay")
        at_least_zero = ("weight_decay", "inverse_decay", "clip_norm", "focal_gamma", "mixup")
        below_one = {"momentum", "beta1", "beta2", "rho", "warmup_fraction", "label_smoothing"}
        counts = {"batch_size": 2, "accumulate": 1, "step_epochs": 1, "plateau_patience": 0}
        counts |= {"patience": 0, "views": 0, "cache_bytes": 0, "seed": 0}
        for name in above_zero:
            self._require(name, getattr(self, name) > 0, "above 0")
        if self.later_lr is not None:
            self._require("later_lr", self.later_lr > 0, "above 0")
        if self.auxiliary is not None:
            self._require("auxiliary", self.auxiliary >= 0, "0 or more")
        for name in (*at_least_zero, "cutmix"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        below_one |= {"ema_decay", "swa_fraction", "schedule_factor", "spatial_dropout"}
        for name in sorted(below_one):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        for name, least in counts.items():
            self._require(name, getattr(self, name) >= least, f"{least} or more")
        in_range = bool(self.dropout) and all(0 <= share < 1 for share in self.dropout)
        self._require("dropout", in_range, "numbers at least 0 and below 1")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise UsageError(f"`{name}` must be {what}, got {getattr(self, name)}. Correct it.")

    @property
    def monitored(self) -> str:
        """The registered name of the metric that chooses the epoch."""
        return METRIC_ALIASES.get(self.monitor, self.monitor)

    @property
    def chosen_trainable(self) -> str:
        """The user's words for what learns, else the strategy's."""
        return self.trainable or STRATEGIES.get(self.strategy).default_trainable

    @property
    def chosen_later_lr(self) -> float:
        """The rate of the phases after the first."""
        return self.lr * LATER_LR_FACTOR if self.later_lr is None else self.later_lr

    @property
    def mixes_images(self) -> bool:
        """Whether images are blended with each other."""
        return self.mixup > 0 or self.cutmix > 0
