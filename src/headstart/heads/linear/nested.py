"""Which columns of the features a head takes, chosen with its penalty inside every fold.

The candidates are nested: the last columns of the widest, ever more of them (a network's own
features, then those of earlier stages before them). Every candidate is searched as it would be
alone, all folds x inner parts x penalties of it at once (`penalties`), in coordinates of its own.
A fold takes the candidate, with its penalty, of the lowest inner log loss; among equals the
narrower. Rows that a fold is scored on have no weight in any of this. The final fit takes the pair
of candidate and penalty whose mean over the folds is lowest.

The first look at a candidate begins at that of the next narrower one, its new columns at zero: half
the rounds or fewer (`mini` on 1,120 images: 96, 121 and 60 for 223, 270 and 258). Candidates share
no coordinates: the Gram matrix of a narrower one lies in that of the widest, but its eigenvectors
do not, and they are what costs on wide features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.heads.inner import InnerRows
from headstart.heads.linear.logistic import LogisticFit, Start
from headstart.heads.linear.penalties import (
    FIT_TOLERANCE,
    LOOK_TOLERANCE,
    SEARCH_TOLERANCE,
    ChosenFit,
    PenaltySearch,
    fit_scaled_logistic,
    search_penalties,
)
from headstart.heads.linear.rotation import RotatedFeatures


@dataclass(frozen=True, kw_only=True, eq=False)
class NestedFit:
    """Heads of F folds, each on the candidate of A, and with the penalty, that its rows chose.

    Attributes:
        heads: coefficients (F, C, D) of the widest candidate, zero in columns that the fold left
            out; tables of each fold's own candidate; the final candidate's `final_penalty`.
        columns: (A,) int64 how many of the last columns a candidate has, fewest first.
        candidate: (F,) int64 the one of each fold.
        final: the one of the final fit.
        log_loss: (A, F) inner log loss at the best penalty.
        accuracy: (A, F) inner accuracy there.
        penalty: (A, F) that penalty.
        mean_log_loss: (A,) inner log loss at the penalty whose mean over the folds is lowest.
    """

    heads: ChosenFit
    columns: Tensor
    candidate: Tensor
    final: int
    log_loss: Tensor
    accuracy: Tensor
    penalty: Tensor
    mean_log_loss: Tensor


def fit_with_chosen_columns(
    candidates: Sequence[RotatedFeatures],
    labels: Tensor,
    train_weights: Tensor,
    inner_held_out: Tensor | InnerRows,
    penalties: Tensor,
    num_classes: int,
    *,
    tolerance: float = FIT_TOLERANCE,
    tolerances: tuple[float, float] = (LOOK_TOLERANCE, SEARCH_TOLERANCE),
) -> NestedFit:
    """Choose each fold's columns and penalty on its inner rows and fit the fold with them.

    Args:
        candidates: A of them from `rotate_features`, (N, D_a) each, the last columns of the
            widest, fewest first.
        labels: as in `fit_with_chosen_penalty`, and so all others.
        train_weights: (F, N).
        inner_held_out: (F, N) or (F, J, N).
        penalties: (P,).
        num_classes: C.
        tolerance: of the folds' heads.
        tolerances: of the two looks.

    Raises:
        ValueError: a fold without inner rows, or with one outside its training part.
    """
    looks = (max(tolerances[0], tolerance), max(tolerances[1], tolerance))
    data = (labels, train_weights, inner_held_out, penalties, num_classes)
    found: list[PenaltySearch] = []
    for features in candidates:
        width = features.raw.shape[1]
        near = _widened((found[-1].look.coef, found[-1].look.intercept), width) if found else None
        found.append(search_penalties(features, *data, tolerances=looks, start=near))
    log_loss = torch.stack([_at(search.log_loss, search.winners) for search in found])
    means = torch.stack([search.mean_log_loss for search in found])  # (A, P)
    candidate, final = log_loss.argmin(0), int(means.amin(1).argmin())
    columns = [features.raw.shape[1] for features in candidates]
    starts = [_widened(search.heads_of(search.winners), columns[-1]) for search in found]
    penalty = torch.stack([search.penalties[search.winners] for search in found])
    fit = fit_on_columns(
        candidates,
        candidate,
        labels,
        train_weights,
        _own(penalty, candidate),
        num_classes,
        tolerance=tolerance,
        start=(
            _own(torch.stack([coef for coef, _ in starts]), candidate),
            _own(torch.stack([intercept for _, intercept in starts]), candidate),
        ),
    )
    return NestedFit(
        heads=_chosen_fit(
            fit, found, candidate, float(found[final].penalties[means[final].argmin()])
        ),
        columns=torch.tensor(columns),
        candidate=candidate,
        final=final,
        log_loss=log_loss,
        accuracy=torch.stack([_at(search.accuracy, search.winners) for search in found]),
        penalty=penalty,
        mean_log_loss=means.amin(1),
    )


def _chosen_fit(
    fit: LogisticFit, found: Sequence[PenaltySearch], candidate: Tensor, final_penalty: float
) -> ChosenFit:
    """The folds' heads with the tables of the candidates (F,) that they chose."""

    def own(name: str) -> Tensor:
        return _own(torch.stack([getattr(search, name) for search in found]), candidate)

    winners = _own(torch.stack([search.winners for search in found]), candidate)
    return ChosenFit(
        coef=fit.coef,
        intercept=fit.intercept,
        penalty=found[0].penalties[winners],
        penalties=found[0].penalties,
        inner_log_loss=own("log_loss"),
        inner_accuracy=own("accuracy"),
        final_penalty=final_penalty,
        iterations=fit.iterations,
        converged=fit.converged,
        contender=own("contender"),
        inner_iterations=own("iterations"),
        inner_converged=own("converged"),
    )


def fit_on_columns(
    candidates: Sequence[RotatedFeatures],
    of: Tensor,
    labels: Tensor,
    weights: Tensor,
    penalties: Tensor,
    num_classes: int,
    *,
    tolerance: float = FIT_TOLERANCE,
    start: Start,
) -> LogisticFit:
    """`fit_scaled_logistic` of K problems, each on a candidate of its own.

    Args:
        candidates: as in `fit_with_chosen_columns`.
        of: (K,) int64, whose columns each problem takes.
        labels: (N,).
        weights: (K, N).
        penalties: (K,).
        num_classes: C.
        tolerance: as in `fit_logistic`.
        start: coefficients (K, C, D) of the widest candidate and intercepts (K, C).

    Returns:
        Coefficients of the widest candidate, zero in columns that a problem leaves out.
    """
    fits: list[tuple[Tensor, LogisticFit]] = []
    for number, features in enumerate(candidates):
        rows = (of == number).nonzero()[:, 0]
        if not len(rows):
            continue
        columns = features.raw.shape[1]
        fit = fit_scaled_logistic(
            features,
            labels,
            weights[rows],
            penalties[rows],
            num_classes,
            tolerance=tolerance,
            start=(start[0][rows, :, -columns:], start[1][rows]),
        )
        fits.append((rows, fit))
    order = torch.cat([rows for rows, _ in fits]).argsort()
    width = start[0].shape[2]
    coefs = [_widened((fit.coef, fit.intercept), width)[0] for _, fit in fits]
    rest = ("intercept", "gradient_norm", "iterations", "converged")
    return LogisticFit(
        coef=torch.cat(coefs)[order],
        **{name: torch.cat([getattr(fit, name) for _, fit in fits])[order] for name in rest},
    )


def _widened(heads: Start, width: int) -> Start:
    """Coefficients of the last columns with zeros before them."""
    coef, intercept = heads
    return torch.nn.functional.pad(coef, (width - coef.shape[2], 0)), intercept


def _own(tables: Tensor, candidate: Tensor) -> Tensor:
    """Of (A, F, ...) what belongs to the candidate (F,) of each fold."""
    return tables[candidate, torch.arange(len(candidate), device=candidate.device)]


def _at(table: Tensor, winners: Tensor) -> Tensor:
    """(F,) of an (F, P) table."""
    return table.gather(1, winners[:, None])[:, 0]
