"""Whether left and right mean something in pictures, by the words in their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Words in names of pictures whose mirror image is another: organs lie on a side, letters read one
# way.
SIDED_WORDS = frozenset(
    ("xray", "xrays", "cxr", "radiograph", "radiographs", "radiography", "chest", "lung", "lungs",
     "mammogram", "mammography", "pneumonia", "tuberculosis", "letter", "letters", "character",
     "characters", "handwriting", "dicom", "mnist", "emnist", "svhn", "notmnist")
)  # fmt: skip


def sided_note(subject: str, names: Iterable[str], advice: str) -> str | None:
    """A sentence where pictures are mirrored whose names say that left and right differ.

    Args:
        subject: what mirrors them.
        names: of the data and its classes; paths, too.
        advice: what else to do.

    Returns:
        None where no name says so.
    """
    for name in names:
        words = re.split("[^a-z]+", name.lower().replace("x-ray", "xray"))
        found = next((word for word in words if word in SIDED_WORDS), None)
        if found is not None:
            return (
                f"{subject} mirrors pictures, and '{found}' in '{name}' says that left and right "
                f"may mean something there. {advice}, unless that is wanted."
            )
    return None
