"""Fine-tuning: which layers learn, when and how fast; resumable, without wasted passes."""

from headstart.finetune.batches.augmentation import (
    POLICIES,
    STEPS,
    Augmenter,
    flip_note,
    flips_sideways,
)
from headstart.finetune.batches.images import PreparedImages, TrainingData, prepare_images
from headstart.finetune.fitting import (
    TunedNetwork,
    fit_network,
    median_drops,
    median_epochs,
    predict_logits,
    refit,
)
from headstart.finetune.preparing import check_training, plan_network
from headstart.finetune.rates import RateSearch, find_rate
from headstart.finetune.records.history import EpochRecord, verdict, write_tensorboard
from headstart.finetune.settings import TrainSettings
from headstart.finetune.strategies import STRATEGIES, Plan, StrategySpec, trainable_plan
from headstart.finetune.summary import summary

__all__ = [
    "POLICIES",
    "STEPS",
    "STRATEGIES",
    "Augmenter",
    "EpochRecord",
    "Plan",
    "PreparedImages",
    "RateSearch",
    "StrategySpec",
    "TrainSettings",
    "TrainingData",
    "TunedNetwork",
    "check_training",
    "find_rate",
    "fit_network",
    "flip_note",
    "flips_sideways",
    "median_drops",
    "median_epochs",
    "plan_network",
    "predict_logits",
    "prepare_images",
    "refit",
    "summary",
    "trainable_plan",
    "verdict",
    "write_tensorboard",
]
