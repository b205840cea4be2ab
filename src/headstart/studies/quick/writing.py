"""The files of a quick choice: for machines, for people, and the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from headstart.files import write_csv, write_text
from headstart.plots import shortened
from headstart.runs.files.outputs import write_figure
from headstart.studies.pareto import add_names, draw_panel
from headstart.studies.quick.scoring import STORED
from headstart.studies.writing import aligned, cell_of, resampled, told

RECORD, TABLE, TEXT, PICTURE = "quick.json", "quick.csv", "quick.txt", "quick.png"
SAMPLE = "quick_images.csv"
COLUMNS = ("name", "model", "weights", "weights_licence", "image_size", "parameters",
           "num_features", "images_per_s", "rate_is", "seconds", "all_images_s", "logme",
           "p_to_best_holm", "within_noise", "front")  # fmt: skip
ESTIMATES = ("accuracy", "neighbours", "behind_best")

Row = Mapping[str, Any]


def write_files(folder: Path, record: Row) -> None:
    """Table, text and picture."""
    write_table(folder / TABLE, record)
    write_text(folder / TEXT, quick_text(record))
    write_figure(folder / PICTURE, quick_figure(record))


def write_table(path: Path, record: Row) -> None:
    """A line a backbone, the most accurate first."""
    header = [f"{name}{end}" for name in ESTIMATES for end in ("", "_low", "_high")]
    rows = []
    for row in record["table"]:
        cells = [row[name][part] for name in ESTIMATES for part in ("value", "low", "high")]
        chosen = row["name"] == record["recommendation"]["chosen"]
        rows.append([cell_of(v) for v in (*(row[name] for name in COLUMNS), *cells, chosen)])
    write_csv(path, [*COLUMNS, *header, "recommended"], rows)


def quick_text(record: Row) -> str:
    """The whole choice for people."""
    advice = record["recommendation"]
    lines = [
        f"Recommended: {advice['chosen']}",
        f"  {advice['reason']}",
        f"  From out-of-fold answers on {record['num_images']:,} of {record['num_train']:,} "
        "training images; the test part was not opened.",
        "",
        *backbone_lines(record),
        "",
        *notes(record),
        *(f"Warning: {sentence}" for sentence in record["warnings"]),
        *(f"Left out: {one['name']}: {one['reason']}" for one in record["left_out"]),
    ]
    return "\n".join(lines) + "\n"


def backbone_lines(record: Row) -> list[str]:
    """The table: a line a backbone, the most accurate first."""
    header = ["", "backbone", "probe", "neighbours", "LogME", "images/s", "here", "all images",
              "parameters", "features"]  # fmt: skip
    rows = [header]
    for row in record["table"]:
        mark = "*" if row["name"] == record["recommendation"]["chosen"] else ""
        about = "~" if row["rate_is"] == STORED else ""
        rows.append(
            [
                mark or ("=" if row["within_noise"] else ""),
                row["name"],
                told(row["accuracy"]),
                told(row["neighbours"]),
                f"{row['logme']:.3f}",
                f"{about}{row['images_per_s']:,.0f}",
                f"{row['seconds']:.1f} s",
                f"{about}{row['all_images_s']:,.1f} s",
                f"{row['parameters']:,}",
                f"{row['num_features']:,}",
            ]
        )
    return aligned(rows)


def notes(record: Row) -> list[str]:
    """What the table's words mean."""
    unit = resampled(record)
    return [
        "* recommended   = within noise of the most accurate   ~ estimated from a part, because "
        "the features were in the store",
        "probe: logistic head, its penalty chosen inside each fold; neighbours: vote of the "
        f"{record['num_neighbours']} nearest images by angle; both: accuracy out of fold in "
        f"{record['num_folds']} folds, 95 % interval over {unit}.",
        "LogME: mean log evidence of a Bayesian linear head on the sample, an image; higher is "
        "better, to be compared within this table only. It decides nothing, nor do neighbours.",
        "here: seconds of building, pass and figures; all images: predicted seconds of a run's "
        f"pass over all {record['num_all']:,}.",
    ]


def quick_figure(record: Row) -> Figure:
    """Accuracy of the probe over the predicted seconds of the pass over all images."""
    table: Sequence[Row] = record["table"]
    chosen = record["recommendation"]["chosen"]
    lines = -(-(len(table) + 1) // 2)
    figure = Figure(figsize=(8, 4.6 + 0.24 * lines), layout="constrained")
    count = f"{record['num_images']:,} training images"
    figure.suptitle(f"{shortened(record['data'], 30)}: which backbone? Out of fold on {count}")
    axes = figure.add_subplot()
    times = [row["all_images_s"] for row in table]
    label = f"predicted seconds of the pass over all {record['num_all']:,} images"
    draw_panel(axes, table, times, chosen, label)
    axes.set_ylabel("accuracy of the probe, 95 % interval")
    add_names(figure, table, chosen)
    return figure
