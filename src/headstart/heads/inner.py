"""The rows of a training part that settings are chosen on, where several rows are of one image.

Views of one image stay together: while a setting is chosen by the whole pictures of some images,
none of their other views may be learnt from, and those have no say either.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class InnerRows:
    """Of F folds over N rows, of which one inner part chooses, or J in turn.

    Attributes:
        chooses: (F, N) or (F, J, N) bool, rows that are scored to choose.
        left_out: bool of the same shape, rows not learnt from meanwhile: those, and other views
            of their images.
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
        """The same as (F, J, N)."""
        if self.chooses.ndim == 3:
            return self
        return InnerRows(chooses=self.chooses[:, None], left_out=self.left_out[:, None])
