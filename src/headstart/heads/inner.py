"""The rows of a training part that settings are chosen on, where several rows are of one image.

Views of one image stay together: while a setting is chosen by the whole pictures of some images,
none of their other views may be learnt from, and those have no say either.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class InnerRows:
    """Of F folds over N rows; of J parts of each fold where penalties are chosen on several.

    Attributes:
        chooses: (F, N) or (F, J, N) bool, rows that are scored to choose.
        left_out: the same shape, rows not learnt from meanwhile: those, and other views of their
            images.
    """

    chooses: Tensor
    left_out: Tensor

    @classmethod
    def of(cls, given: Tensor | InnerRows) -> InnerRows:
        """Itself; a mask alone chooses and is left out."""
        if isinstance(given, InnerRows):
            return given
        return cls(chooses=given, left_out=given)

    def in_parts(self) -> InnerRows:
        """(F, J, N); J = 1 where there is one part a fold."""
        if self.chooses.ndim == 3:
            return self
        return InnerRows(chooses=self.chooses[:, None], left_out=self.left_out[:, None])
