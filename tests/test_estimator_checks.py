"""scikit-learn's own estimator checks, as far as they concern an estimator of pictures.

scikit-learn's estimator checks hand over tables of numbers. `ImageClassifier` says by its tags
that it takes none, whereupon scikit-learn asks for little. So they run twice more: on the class
as it is, tags apart, where a check that fits a table must end in our refusal; and on a subclass
that paints each row of a table as a picture, where every check must pass.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart import ImageClassifier


class Tabular(ImageClassifier):
    """`ImageClassifier` with tags that make the checks run."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = False
        tags.input_tags.string = False
        return tags


class Painted(Tabular):
    """Paints a row of F numbers as F grey bars, and leaves all else to `ImageClassifier`."""

    def fit(self, X, y, groups=None):  # noqa: N803 - scikit-learn's name
        return super().fit(self._paint(X, reset=True), y, groups)

    def _logits(self, pictures):
        check_is_fitted(self)
        return super()._logits(self._paint(pictures, reset=False))

    def _paint(self, table, *, reset):
        levels = 255 / (1 + np.exp(-validate_data(self, table, reset=reset).astype(float)))
        bars = np.repeat(levels, 4, axis=1).astype(np.uint8)
        return np.broadcast_to(bars[:, None, :, None], (len(bars), 8, bars.shape[1], 3))


FITS_A_TABLE = "fits a table of numbers, which is no picture and is refused"
OWN_WORDS = "wants scikit-learn's wording of a fault in a table; a table is refused as a whole"
REFUSED = {
    "check_fit_score_takes_y": FITS_A_TABLE,
    "check_estimators_overwrite_params": FITS_A_TABLE,
    "check_dont_overwrite_parameters": FITS_A_TABLE,
    "check_estimators_fit_returns_self": FITS_A_TABLE,
    "check_readonly_memmap_input": FITS_A_TABLE,
    "check_n_features_in_after_fitting": FITS_A_TABLE,
    "check_n_features_in": FITS_A_TABLE,
    "check_positive_only_tag_during_fit": FITS_A_TABLE,
    "check_estimators_dtypes": FITS_A_TABLE,
    "check_dtype_object": FITS_A_TABLE,
    "check_pipeline_consistency": FITS_A_TABLE,
    "check_estimators_pickle": FITS_A_TABLE,
    "check_f_contiguous_array_estimator": FITS_A_TABLE,
    "check_classifier_data_not_an_array": FITS_A_TABLE,
    "check_classifiers_classes": FITS_A_TABLE,
    "check_classifiers_train": FITS_A_TABLE,
    "check_supervised_y_2d": FITS_A_TABLE,
    "check_decision_proba_consistency": FITS_A_TABLE,
    "check_methods_sample_order_invariance": FITS_A_TABLE,
    "check_methods_subset_invariance": FITS_A_TABLE,
    "check_dict_unchanged": FITS_A_TABLE,
    "check_fit_idempotent": FITS_A_TABLE,
    "check_fit_check_is_fitted": FITS_A_TABLE,
    "check_fit2d_predict1d": FITS_A_TABLE,
    "check_complex_data": OWN_WORDS,
    "check_estimators_empty_data_messages": OWN_WORDS,
    "check_estimators_nan_inf": OWN_WORDS,
    "check_classifiers_one_label": OWN_WORDS,
    "check_classifiers_regression_target": OWN_WORDS,
    "check_fit2d_1sample": OWN_WORDS,
    "check_fit2d_1feature": OWN_WORDS,
    "check_requires_y_none": OWN_WORDS,
}


@parametrize_with_checks([Painted(image_size=32, penalty=0.01)])
def test_scikit_learn_checks_on_painted_tables(estimator, check):
    assert check(estimator) is None  # it raises what it finds


def test_scikit_learn_checks_on_the_class_itself():
    found = check_estimator(Tabular(), on_skip=None, on_fail=None)
    failed = {
        entry["check_name"]: entry["exception"] for entry in found if entry["status"] == "failed"
    }
    assert set(failed) == set(REFUSED)
    for name, error in failed.items():
        causes = [error, error.__cause__, error.__context__]
        assert any("`X` must" in str(cause) for cause in causes), name
    assert sum(entry["status"] == "passed" for entry in found) >= 18


def test_scikit_learn_takes_the_tags():
    with pytest.warns(SkipTestWarning, match="two_d_array=False"):
        check_estimator(ImageClassifier())
