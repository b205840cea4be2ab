"""`duplicates.png`: the pairs side by side, so that a person can judge them.

A card a pair: in its head what kind it is and what the two tests say, below it the two pictures
whole, under each its label and the end of its path.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from PIL import Image

from headstart.audit.findings import Pair
from headstart.data import DecodingError, decode
from headstart.data.boxes import crop_to_box
from headstart.plots import BLUE, GREEN, ORANGE, shortened
from headstart.records import ImageTable

COLUMNS = 4
MOST_PAIRS = 40
QUOTAS = (("exact", 8), ("near", 20), ("suspect", 12))
SIDE_PX = 160
COLOURS = {"exact": ORANGE, "near": GREEN, "suspect": BLUE}
HEADS = {"exact": "equal pixels", "near": "near-duplicate", "suspect": "suspect"}
LONGEST_PATH = 23
CARD_IN, HEAD_IN, FOOT_IN = (3.5, 2.2), 0.95, 0.5
LEGEND = (
    "in brackets: distance of the embeddings as a multiple of the limit (near below 1.00); bits of "
    "64 in which the perceptual hashes differ"
)


def choose_pairs(table: ImageTable, pairs: Sequence[Pair], most: int = MOST_PAIRS) -> list[Pair]:
    """The closest of each kind; near and exact ones may fill what is free.

    Those with other labels or across the split come first, except among suspects, where that
    would bring up what merely looks alike.
    """
    by_kind = {kind: [pair for pair in pairs if pair.kind == kind] for kind, _ in QUOTAS}
    for kind in ("exact", "near"):
        by_kind[kind].sort(key=lambda pair: not alarms(table, pair))
    quota = {kind: min(count, len(by_kind[kind])) for kind, count in QUOTAS}
    for kind in ("near", "exact"):
        free = most - sum(quota.values())
        quota[kind] += max(0, min(free, len(by_kind[kind]) - quota[kind]))
    return [pair for kind, _ in QUOTAS for pair in by_kind[kind][: quota[kind]]]


def alarms(table: ImageTable, pair: Pair) -> list[str]:
    """What makes a pair grave."""
    found = []
    if table.labels[pair.first] != table.labels[pair.second]:
        found.append("LABELS DIFFER")
    if table.splits[pair.first] != table.splits[pair.second]:
        found.append("ACROSS THE SPLIT")
    return found


def pair_figure(table: ImageTable, pairs: Sequence[Pair]) -> Figure:
    """The grid of pairs.

    Args:
        table: the images.
        pairs: at least one, as `choose_pairs` gives them.
    """
    columns = min(COLUMNS, max(2, len(pairs)))
    rows = -(-len(pairs) // columns)
    height = CARD_IN[1] * rows + HEAD_IN + FOOT_IN
    figure = Figure(figsize=(CARD_IN[0] * columns, height))
    outer = GridSpec(
        *(rows, columns),
        figure=figure,
        wspace=0.1,
        hspace=0.42,
        left=0.02,
        right=0.98,
        bottom=FOOT_IN / height,
        top=1 - HEAD_IN / height,
    )
    middle = 0.5
    figure.text(
        *(middle, 1 - 0.2 / height, f"{shortened(table.name, 60)}: pairs that may show the same"),
        fontsize=13,
        ha="center",
        va="center",
    )
    figure.text(*(middle, 1 - 0.42 / height, LEGEND), fontsize=8, ha="center", va="center")
    for place, pair in enumerate(pairs):
        inner = outer[place].subgridspec(1, 2, wspace=0.04)
        for side, row in enumerate((pair.first, pair.second)):
            axes = figure.add_subplot(inner[side])
            _draw(axes, table, row, COLOURS[pair.kind])
            if side == 0:
                axes.set_title(
                    _head(table, pair), fontsize=8.5, loc="left", color=COLOURS[pair.kind], pad=4
                )
    return figure


def _head(table: ImageTable, pair: Pair) -> str:
    head = HEADS[pair.kind]
    if pair.kind != "exact":
        tests = pair.tests.replace("embedding and hash", "both tests")
        head += f" ({tests}: {pair.distance:.2f}, {pair.bits} bits)"
    return "\n".join(filter(None, [head, ", ".join(alarms(table, pair))]))


def _draw(axes, table: ImageTable, row: int, colour: str) -> None:  # type: ignore[no-untyped-def]
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour)
    split = f" ({table.splits[row]})" if table.splits[row] else ""
    label = shortened(table.label_of(row) or "no label", 18) + split
    axes.set_xlabel(f"{label}\n{shortened_path(table.paths[row])}", fontsize=7.5)
    axes.set_facecolor("#eeeeee")
    try:
        image, _ = decode(table.read(row), table.paths[row], min_side=SIDE_PX)
    except (DecodingError, OSError):
        axes.text(0.5, 0.5, "no longer readable", ha="center", va="center", fontsize=7)
        return
    box = table.box_of(row)
    if box is not None:
        image = crop_to_box(image, box)
    image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    axes.imshow(image, extent=(0, image.width, image.height, 0))
    edge = max(image.size)
    axes.set_xlim((image.width - edge) / 2, (image.width + edge) / 2)
    axes.set_ylim((image.height + edge) / 2, (image.height - edge) / 2)


def shortened_path(path: str, longest: int = LONGEST_PATH) -> str:
    """The end of a path, which is what tells images apart, with mathematics signs made plain."""
    shown = path if len(path) <= longest else "…" + path[-(longest - 1) :]
    return shown.replace("$", r"\$")
