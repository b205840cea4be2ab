"""`ImageClassifier`: fit, predict and score pictures in scikit-learn's manner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from headstart.bundle import save_bundle
from headstart.bundle.format import BUNDLE_FILE, MANIFEST_FILE
from headstart.data.folders import class_name
from headstart.errors import OutputError, UsageError
from headstart.estimator.choices import Choices, progress_of
from headstart.estimator.head_fits import Examples, refuse_not_finite
from headstart.estimator.inputs import as_groups, as_images, as_labels
from headstart.estimator.strategies import features_of, fit_with_strategy
from headstart.files import make_folder, read_json
from headstart.heads import head_logits, to_probabilities


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An image classifier for scikit-learn: X is pictures, y their labels.

    Every picture goes through the network once and is remembered in the feature store, so the
    folds of `cross_val_score` and all candidates of `GridSearchCV` cost one pass together.

        from sklearn.model_selection import cross_val_score
        from headstart import ImageClassifier

        accuracy = cross_val_score(ImageClassifier(backbone="mini"), paths, labels, cv=5)

    X is a list, a one-dimensional array or a data frame's column of paths, PIL images, encoded
    files (bytes) or uint8 arrays, or one (N, H, W, 3) or (N, H, W) uint8 array. A picture that
    cannot be read is an error that names it.

    Attributes:
        classes_: (C,) labels in sorted order, that of every probability column.
        chosen_: what was chosen while fitting, for instance {'penalty': 0.01}.
        model_: head and network, for `save` and prediction.
    """

    def __init__(  # noqa: PLR0913 - scikit-learn's constructors name every parameter
        self,
        *,
        backbone: str = "mini",
        strategy: str = "probe",
        head: str = "logistic",
        penalty: float | None = None,
        hidden: tuple[int, ...] | None = None,
        dropout: float | None = None,
        lr: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        class_weights: str = "none",
        weights: str | os.PathLike[str] = "auto",
        image_size: int | None = None,
        layers: str | int | None = None,
        random_state: int = 0,
        device: str = "auto",
        precision: str = "auto",
        cache: bool = True,
        verbose: bool = False,
    ) -> None:
        """Keep the parameters; `fit` checks them.

        Args:
            backbone: name of the network, as in `headstart models`.
            strategy: 'probe' trains a head on the frozen network.
            head: 'logistic' or 'mlp'.
            penalty: strength of a logistic head's L2 penalty, for features of unit mean square;
                None chooses it on a fifth of the training pictures, then fits on all of them.
            hidden: widths of an mlp head's hidden layers, as in (512, 64); None for its own, and
                so for the next four.
            dropout: of an mlp head, after every hidden layer.
            lr: learning rate of an mlp head.
            epochs: of an mlp head at most; how many is chosen as a penalty is.
            batch_size: pictures a step of an mlp head.
            class_weights: 'none', or 'balanced' to give every class the same weight.
            weights: 'auto', 'bundled', 'hub', 'none' (random) or a file.
            image_size: input size in px, None for the network's own.
            layers: stages whose features the head takes, 'stage3,head' or a number of them from
                the last; None for the network's own features.
            random_state: every random choice hangs on it.
            device: 'auto', 'cpu', 'cuda' or 'mps'.
            precision: 'auto', 'bfloat16' or 'float32'.
            cache: keep features in the feature store and read them from there; without it every
                fit and every prediction sends its pictures through the network.
            verbose: show progress on standard error.
        """
        self.backbone = backbone
        self.strategy = strategy
        self.head = head
        self.penalty = penalty
        self.hidden = hidden
        self.dropout = dropout
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.class_weights = class_weights
        self.weights = weights
        self.image_size = image_size
        self.layers = layers
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.cache = cache
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        """Pictures go in: no table of numbers, but text (paths) and pixels."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Learn from labelled pictures.

        Args:
            X: N pictures, see the class.
            y: (N,) labels: text, whole numbers or truth values.
            groups: (N,) patient, video or the like of each picture, or None; pictures of one
                group stay together where a part is held out to choose settings.

        Raises:
            UsageError: a parameter, picture or label that cannot be, or training that diverged.
            DataError: pictures that cannot be read; the first ones are named.
            WeightsError: the network's weights are not at hand.
        """
        choices = Choices.of(self.get_params(deep=False))
        images = as_images(X)
        classes, labels = as_labels(y, len(images))
        examples = Examples(
            images=images,
            labels=labels,
            groups=as_groups(groups, len(images)),
            num_classes=len(classes),
        )
        self.model_ = fit_with_strategy(choices, examples)
        self.chosen_ = dict(self.model_.head.chosen)
        self.classes_ = classes
        self._record = choices.record
        return self

    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """(N, C) logits; with two classes, as scikit-learn has it, (N,) those of the second.

        Raises:
            NotFittedError: before `fit`.
            UsageError: X is no pictures.
            DataError: pictures that cannot be read; the first ones are named.
        """
        logits = self._logits(X)
        if logits.shape[1] > 2:
            return logits
        odds: npt.NDArray[np.float64] = logits[:, 1] - logits[:, 0]
        return odds

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803
        """(N, C) probabilities in the order of `classes_`; raises as `decision_function`."""
        return to_probabilities(self._logits(X))

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """(N,) the most probable class of each picture; raises as `decision_function`."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[best]
        return labels

    def save(self, folder: str | os.PathLike[str]) -> str:
        """Write a bundle, from which `headstart.load(folder)` gives the same answers.

        Args:
            folder: where it will stand; an older bundle there is replaced. Classes are written as
                text, in the order of `classes_`.

        Returns:
            The bundle's root digest.

        Raises:
            NotFittedError: before `fit`.
            UsageError: two classes have one name as text, or the head is not finite.
            OutputError: other files are there, or the folder cannot be written.
            StorageError: the disk is full.
        """
        check_is_fitted(self)
        refuse_not_finite(self.model_.head)
        names = [class_name(str(label)) for label in self.classes_.tolist()]
        if len(set(names)) < len(names):
            raise UsageError(
                "Two classes have the same name once written as text (after NFC). Rename one."
            )
        place = Path(folder).absolute()
        _check_replaceable(place)
        make_folder(place.parent)
        return save_bundle(
            place,
            network=self.model_.extractor().network,
            head=self.model_.head,
            class_names=names,
            about={"estimator": self._record},
        )

    def _logits(self, pictures: Any) -> npt.NDArray[np.float64]:
        """(N, C) logits."""
        check_is_fitted(self)
        values = features_of(
            as_images(pictures),
            self.model_.extractor(),
            cache=self.cache,
            progress=progress_of(verbose=self.verbose),
        )
        return head_logits(values, self.model_.head.layers)


def _check_replaceable(place: Path) -> None:
    """Refuse a folder that holds something else than a bundle.

    Raises:
        OutputError: it does, or it is a file.
    """
    if place.exists() and not (place.is_dir() and (not any(place.iterdir()) or _is_bundle(place))):
        raise OutputError(
            f"'{place}' holds something else than a bundle. Choose a new or empty folder."
        )


def _is_bundle(place: Path) -> bool:
    """Whether a folder holds a bundle and nothing else."""
    try:
        listed = set(read_json(place / MANIFEST_FILE)["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return BUNDLE_FILE in listed and {entry.name for entry in place.iterdir()} == {
        MANIFEST_FILE,
        *listed,
    }
