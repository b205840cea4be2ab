"""How sure a model is of an answer: temperature, sets of classes, what it has never seen.

All of it travels in the bundle, so that every predictor says the same:

    logits          of the whole picture, or the mean of its own and its mirror image's
    probabilities   softmax(logits / temperature)
    sets            the classes that cannot be excluded at a stated rate of misses (conformal)
    unknown         whether the picture's features lie further from every class than those of
                    nearly all pictures of the known kinds (Mahalanobis)
    called          whether one class, the positive one, reaches its operating threshold
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.calibration import apply_temperature
from headstart.conformal import ConformalRule
from headstart.data.views import MIRRORED, WHOLE, View, check_tta
from headstart.outliers import MahalanobisModel
from headstart.records import Floats, Preprocessing

PREFIX = "outliers."
State = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A yes or no about one class.

    Attributes:
        positive: name of the class.
        index: its place in the class order.
        threshold: called positive where its calibrated probability is at least this, 0 to
            just above 1 (nothing is called positive then).
        rule: how the threshold was chosen, in the words of `--threshold`.
    """

    positive: str
    index: int
    threshold: float
    rule: str

    def called(self, probabilities: Floats) -> npt.NDArray[np.bool_]:
        """(N, C) calibrated probabilities -> (N,) whether each image is called positive."""
        # A threshold may lie between two neighbours in 32 bits.
        return np.asarray(probabilities[:, self.index].astype(np.float64) >= self.threshold)


@dataclass(frozen=True, kw_only=True, eq=False)
class Confidence:
    """What turns logits and features of a picture's views into probabilities, sets and warnings.

    Attributes:
        temperature: logits are divided by it; 1 leaves them.
        sets: rule of the prediction sets, None where there were too few images for one.
        outliers: distance to what is known, None where there were too few images.
        outlier_threshold: pictures further away are called unknown.
        decision: about the positive class, None where none was named.
        tta: 'flip' where logits and features are means over the whole picture and its mirror
            image, all of the above fitted to those; None where the whole picture answers.
    """

    temperature: float = 1.0
    sets: ConformalRule | None = None
    outliers: MahalanobisModel | None = None
    outlier_threshold: float | None = None
    decision: Decision | None = None
    tta: str | None = None

    def probabilities(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """(N, C) logits -> (N, C) probabilities."""
        return apply_temperature(logits, self.temperature).astype(np.float32)

    @property
    def views(self) -> tuple[View, ...]:
        """A views of a picture whose logits and features are averaged, the whole one first."""
        return (WHOLE, MIRRORED) if self.tta else (WHOLE,)

    def describe_pictures(self, preprocessing: Preprocessing) -> str:
        """How pictures are looked at, in words."""
        averaged = ", answers averaged with those of its mirror image" if self.tta else ""
        return preprocessing.describe() + averaged

    def outlier_scores(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.float64] | None:
        """(N, D) features -> (N,) distances, higher is stranger; None without a model."""
        return None if self.outliers is None else self.outliers.score(features)

    def describe(self) -> dict[str, Any]:
        """The plain part, for `bundle.json`."""
        return {
            "temperature": self.temperature,
            "sets": None if self.sets is None else asdict(self.sets),
            "outlier_threshold": self.outlier_threshold,
            "decision": None if self.decision is None else asdict(self.decision),
            "tta": self.tta,
        }

    def tensors(self) -> State:
        """The arrays, for the weights file."""
        if self.outliers is None:
            return {}
        return {
            PREFIX + name: torch.from_numpy(np.ascontiguousarray(values))
            for name, values in self.outliers.tensors().items()
        }


def read_confidence(stored: Mapping[str, Any] | None, state: State) -> Confidence:
    """What `describe` and `tensors` kept; bundles of the first schema have none.

    Raises:
        KeyError, TypeError, ValueError: something is missing or of a wrong kind.
    """
    if stored is None:
        return Confidence()
    temperature, rule = float(stored["temperature"]), stored["sets"]
    if not 0 < temperature < np.inf:
        raise ValueError("the temperature must be above 0")
    sets = None
    if rule is not None:
        sets = ConformalRule(
            alpha=float(rule["alpha"]),
            score=rule["score"],
            by_class=bool(rule["by_class"]),
            thresholds=tuple(map(float, rule["thresholds"])),
            num_images=tuple(map(int, rule["num_images"])),
        )
    arrays = {k.removeprefix(PREFIX): v.numpy() for k, v in state.items() if k.startswith(PREFIX)}
    threshold = stored["outlier_threshold"]
    return Confidence(
        temperature=temperature,
        sets=sets,
        outliers=MahalanobisModel(**arrays) if arrays else None,
        outlier_threshold=None if threshold is None else float(threshold),
        decision=read_decision(stored.get("decision")),
        tta=check_tta(stored.get("tta")),
    )


def read_decision(stored: Mapping[str, Any] | None) -> Decision | None:
    """The decision as it was kept; older bundles have none.

    Raises:
        KeyError, TypeError, ValueError: something is missing or of a wrong kind.
    """
    if stored is None:
        return None
    threshold = float(stored["threshold"])
    if not 0 <= threshold < 2:
        raise ValueError("the operating threshold must be between 0 and 1")
    return Decision(
        positive=str(stored["positive"]),
        index=int(stored["index"]),
        threshold=threshold,
        rule=str(stored["rule"]),
    )
