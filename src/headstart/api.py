"""The Python side of the main job: the words of the command line as functions."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.bundle import Classifier, load_classifier
from headstart.errors import HeadstartError, UsageError
from headstart.progress import Progress
from headstart.runs import RunResult, RunSettings, run_job
from headstart.shipping import evaluate as evaluate
from headstart.shipping import evaluate_pair as evaluate_pair
from headstart.shipping import export as export
from headstart.shipping import folder_or_name

if TYPE_CHECKING:
    from headstart.studies import ComparisonResult, ComparisonSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headstart.records import ImageTable, Preprocessing


def run(
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    resume: bool = False,
    progress: Progress | None = None,
    images: bool = True,
    **settings: Any,
) -> RunResult:
    """Learn from a folder of labelled pictures: cross-validate, fit, test once, write it down.

    Args:
        data: a folder of class folders, or the name of a built-in data set such as 'digits'.
        out: folder of the run, new or empty.
        resume: go on with an interrupted run in `out`.
        progress: silent where None; `headstart.progress.for_terminal()` shows a bar.
        images: whether the report shows pictures of the data.
        **settings: any other field of `headstart.runs.RunSettings` (`model`, `folds`, `seed`,
            `test_data`, `weights`, `image_size`, ...).

    Returns:
        The figures (`.metrics`), the record (`.record`) and the folder (`.out`).

    Raises:
        UsageError: bad settings or bad data, in one sentence.
        StorageError: the disk is full.
    """
    check_names(settings)
    chosen = RunSettings(data=folder_or_name(data), out=os.fspath(out), **settings)
    return run_and_report(chosen, resume=resume, progress=progress, images=images)


def run_and_report(
    settings: RunSettings,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    images: bool = True,
) -> RunResult:
    """The main job, then its report, model card and checklist in the run's folder.

    A report that cannot be written takes nothing from the run: the reason is told.

    Args:
        settings: what the user decided.
        resume: go on with an interrupted run.
        progress: silent where None.
        images: whether the report shows pictures of the data.

    Raises:
        UsageError: bad settings or bad data.
        StorageError: the disk is full.
    """
    progress = progress or Progress()
    result = run_job(settings, resume=resume, progress=progress)
    report_or_tell(result.out, progress, images=images)
    return result


def check_names(settings: Mapping[str, Any]) -> None:
    """Refuse what is no setting of a run.

    Raises:
        UsageError: one such.
    """
    known = {field.name for field in dataclasses.fields(RunSettings)}
    for name in settings:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise UsageError(f"`{name}` is no setting of a run. Settings are {listed}.")


def report_or_tell(folder: Path, progress: Progress, *, images: bool) -> None:
    """Write a run's report; where that fails, tell why and go on."""
    try:
        report(folder, images=images)
    except HeadstartError as error:
        progress.note(f"No report: {error}")


def compare(  # noqa: PLR0913 - a command as a function
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    models: Sequence[str] = ("mini",),
    strategies: Sequence[str] = ("probe",),
    vary: Mapping[str, Sequence[Any]] | None = None,
    repeats: int = 3,
    fast: str = "training",
    test_all: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    images: bool = True,
    **settings: Any,
) -> ComparisonResult:
    """Compare backbones and strategies on the same folds; recommend one, then test that one.

    Args:
        data: a folder of class folders, or a built-in name.
        out: folder of the comparison, new or empty; every candidate has its run in it.
        models: names of backbones.
        strategies: names of strategies.
        vary: settings of the model with several values each, such as `{"image_size": [64, 96]}`.
        repeats: cross-validations of a probe.
        fast: 'training' or 'prediction', the time that counts in the recommendation.
        test_all: open the test part for all candidates; re-ranks nothing, and is stamped.
        resume: go on with the comparison in `out`.
        progress: silent where None.
        images: whether the reports show pictures of the data.
        **settings: any other field of `headstart.runs.RunSettings`, the same for all.

    Returns:
        The record (`.record`), the folder (`.out`) and the runs that were tested (`.opened`).

    Raises:
        UsageError: bad settings or data, or weights that are not at hand, before any work.
        StorageError: the disk is full.
    """
    from headstart.studies import ComparisonSettings

    check_names(settings)
    asked = ComparisonSettings(
        out=os.fspath(out),
        settings={"data": folder_or_name(data), **settings},
        models=models,
        strategies=strategies,
        vary=vary or {},
        repeats=repeats,
        fast=fast,
    )
    return compare_and_report(
        asked, test_all=test_all, resume=resume, progress=progress, images=images
    )


def compare_and_report(
    settings: ComparisonSettings,
    *,
    test_all: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    images: bool = True,
) -> ComparisonResult:
    """The comparison, then a report of every run whose test part was opened.

    Args:
        settings: what the user decided.
        test_all: open the test part for all candidates.
        resume: go on with an interrupted comparison.
        progress: silent where None.
        images: whether the reports show pictures of the data.

    Raises:
        UsageError: bad settings or data.
        StorageError: the disk is full.
    """
    from headstart.studies import compare_jobs

    progress = progress or Progress()
    result = compare_jobs(settings, test_all=test_all, resume=resume, progress=progress)
    for folder in result.opened:
        report_or_tell(folder, progress, images=images)
    return result


def load(path: str | os.PathLike[str], **options: Any) -> Classifier:
    """Load the model of a run or a bundle.

    Args:
        path: folder of a run or of a bundle.
        **options: `device`, `precision`, `expect_digest`, `engine`, as in
            `headstart.bundle.load_classifier`.

    Returns:
        A classifier; `.predict(images)` takes paths, folders, PIL images and arrays.

    Raises:
        BundleError: it is missing, damaged, or newer than this version.
    """
    return load_classifier(Path(path), **options)


def preview(
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    model: str = "mini",
    image_size: int | None = None,
    image: str | None = None,
    num: int = 6,
    **options: Any,
) -> dict[str, Any]:
    """Draw some images of the data beside what a network sees of them, or augmented views.

    Args:
        data: as in `run`.
        out: the PNG to write.
        model: backbone whose preprocessing is shown; its weights are not needed.
        image_size: input size in px, None for the network's own.
        image: path of the one image to show, as the data name it or as a file.
        num: how many images otherwise, one of each class in turn.
        **options: `seed` of their choice; `augment`, a policy whose views are drawn instead;
            `test_data`, `group_by`, `columns`, `crop_margin` as in `headstart.data.load_table`.

    Returns:
        The file, the policy in words, the images shown, and notes about the data.

    Raises:
        UsageError: bad data, no such image, or one that cannot be decoded.
    """
    from headstart.backbones import build_network, find_backbone
    from headstart.data import load_table
    from headstart.data.preview import choose_rows, find_row
    from headstart.files import make_folder, write_whole
    from headstart.finetune.preview import augment_preview

    seed, augment = options.pop("seed", 0), options.pop("augment", None)
    table = load_table(folder_or_name(data), **options)
    rows = choose_rows(table, num, seed) if image is None else [find_row(table, image)]
    network = build_network(find_backbone(model), weights="none", image_size=image_size)
    preprocessing = network.preprocessing
    crop = "" if table.boxes is None else "cropped to its box, then "
    policy = f"{model}: {crop}{preprocessing.describe()}"
    if augment is None:
        figure = pairs_figure(table, rows, preprocessing, policy)
    else:
        figure = augment_preview(table, rows, augment, preprocessing, seed=seed)
    target = Path(out)
    make_folder(target.parent)
    write_whole(target, lambda aside: figure.savefig(aside, dpi=110, format="png"))
    shown = [table.paths[row] for row in rows]
    return {"out": str(target), "policy": policy, "images": shown, "notes": list(table.notes)}


def pairs_figure(
    table: ImageTable, rows: Sequence[int], preprocessing: Preprocessing, title: str
) -> Figure:
    """Each picture as it is beside what the network sees of it.

    Raises:
        UsageError: a picture that cannot be decoded.
    """
    from headstart.data import decode
    from headstart.data.preview import cropped
    from headstart.inference import resize_pixels
    from headstart.plots import preview_figure

    pictures = [decode(table.read(row), table.paths[row])[0] for row in rows]
    boxes = [table.box_of(row) for row in rows]
    pairs = [
        (np.asarray(picture), resize_pixels(cropped(picture, box), preprocessing))
        for picture, box in zip(pictures, boxes, strict=True)
    ]
    captions = [f"{table.label_of(row)}\n{table.paths[row]}" for row in rows]
    return preview_figure(pairs, boxes, captions, title)


def suggest_rate(
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    model: str = "mini",
    strategy: str = "partial",
    num_steps: int = 100,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Raise the learning rate step by step and see where training falls fastest and breaks.

    Args:
        data: as in `run`; test images are not looked at.
        out: the PNG of the curve.
        model: backbone.
        strategy: of fine-tuning.
        num_steps: steps of training, from the lowest rate to the highest.
        progress: silent where None.
        **options: `image_size`, `weights`, `batch_size`, `seed`, `device`, `precision`, and
            `test_data`, `group_by`, `columns`, `crop_margin` of `headstart.data.load_table`.

    Returns:
        The suggestion, the rates and losses, and the file.

    Raises:
        UsageError: bad data, or too few steps to tell.
    """
    from headstart.backbones import build_network, find_backbone
    from headstart.data import load_table
    from headstart.files import make_folder, write_whole
    from headstart.finetune import TrainSettings
    from headstart.finetune.preview import rate_preview, search_rate
    from headstart.inference import FeatureExtractor
    from headstart.runtime import choose_execution

    own = ("image_size", "weights", "batch_size", "seed", "device", "precision")
    given = {name: options.pop(name) for name in own if options.get(name) is not None}
    options = {name: value for name, value in options.items() if name not in own}
    table = load_table(folder_or_name(data), **options)
    network = build_network(
        find_backbone(model),
        weights=given.get("weights", "auto"),
        image_size=given.get("image_size"),
    )
    execution = choose_execution(given.get("device", "auto"), given.get("precision", "auto"))
    training = {name: given[name] for name in ("batch_size", "seed") if name in given}
    found = search_rate(
        table,
        FeatureExtractor(network, execution),
        TrainSettings(strategy=strategy, **training),
        num_steps=num_steps,
        progress=progress,
    )
    figure, target = rate_preview(found, model, strategy), Path(out)
    make_folder(target.parent)
    write_whole(target, lambda aside: figure.savefig(aside, dpi=110, format="png"))
    return {
        "suggested": found.suggested,
        "out": str(target),
        "rates": list(found.rates),
        "losses": list(found.losses),
    }


def convert(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: str = "folders",
    size: int | None = None,
    channels: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """Write labelled data as pictures; a second call goes on, or does nothing.

    Args:
        data: as in `run`.
        out: a new or empty folder, or one of an earlier call.
        to: 'folders' for class folders, 'manifest' for files beside `manifest.csv`.
        size: shorter side in px, None as it is.
        channels: 1 or 3; None for 1 where the source holds grey pixels, else 3.
        strict: stop at an image that cannot be read.
        progress: silent where None.
        **reading: `test_data`, `group_by`, `columns`, as in `headstart.data.load_table`.

    Returns:
        The folder, what to load, counts of pictures written and kept, the images that cannot be
        read with the reason, classes whose folder is named otherwise, notes about the data.

    Raises:
        UsageError: bad data or settings, or a folder that holds something else.
        StorageError: the disk is full.
    """
    from headstart.data import load_table
    from headstart.data.converted import ConversionSettings, convert_table

    settings = ConversionSettings(to=to, size=size, channels=channels)
    target = Path(out)
    if isinstance(data, os.PathLike) or Path(data).is_dir():
        source = Path(data).resolve()
        if target.resolve().is_relative_to(source if source.is_dir() else source / "never"):
            raise UsageError(
                f"`out` must not lie inside the data, got '{target}': it would be read as images. "
                "Name a folder elsewhere."
            )
    table = load_table(folder_or_name(data), **reading)
    done = convert_table(table, target, settings, strict=strict, progress=progress)
    return {
        **dataclasses.asdict(done),
        "out": str(done.out),
        "load": str(done.load),
        "notes": list(table.notes),
    }


def report(
    *runs: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    images: bool = True,
) -> Path:
    """Write the report of a finished run, or of several side by side.

    Args:
        *runs: folders of runs.
        out: the HTML page; None writes `report.html` into the folder of a single run, and into
            the current folder for several. A single run's model card and CLAIM checklist lie
            beside the page.
        images: False leaves all pictures out, for data that are private.

    Returns:
        Where the page is.

    Raises:
        UsageError: no run there, an unfinished or damaged one.
    """
    from headstart.report import write_report

    place = None if out is None else Path(out)
    return write_report([Path(run) for run in runs], place, with_images=images)


def claim_template(run: str | os.PathLike[str]) -> Path:
    """Write a `claim.yaml` into a run's folder, for its author to fill in."""
    from headstart.report import write_claim_template

    return write_claim_template(Path(run))


def audit(
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    test_data: str | os.PathLike[str] | None = None,
    group_by: str | None = None,
    columns: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], str]:
    """Look for what makes figures from these images wrong.

    Args:
        data: folder, manifest, pack or built-in name.
        out: folder for `audit.json`, `audit.txt` and `duplicates.png`.
        test_data: a second folder or manifest, the test part.
        group_by: column, or regular expression on the path.
        columns: names of a manifest's columns where they are unusual.
        seed: of samples and intervals.
        progress: silent where None.

    Returns:
        Everything countable as `audit.json` keeps it, and the same as text.

    Raises:
        DataError: the data are not there.
    """
    from headstart.audit import audit_table, audit_text, write_audit
    from headstart.data import load_table

    table = load_table(
        folder_or_name(data),
        test_data=None if test_data is None else os.fspath(test_data),
        group_by=group_by,
        columns=columns,
    )
    found = audit_table(table, seed=seed, progress=progress)
    if out is not None:
        write_audit(Path(out), found)
    return found.summary, audit_text(found)


def summarise(
    model: str,
    *,
    strategy: str = "full",
    trainable: str | None = None,
    image_size: int | None = None,
) -> str:
    """The layers of a backbone, their shapes and parameters, and what a strategy would train.

    Args:
        model: name of the backbone; its weights are not needed.
        strategy: of fine-tuning.
        trainable: what learns, as in `RunSettings`.
        image_size: input size in px, None for the network's own.

    Raises:
        UsageError: an unknown name, or a choice that this network does not have.
    """
    from headstart.backbones import build_network, find_backbone
    from headstart.finetune import TrainSettings, plan_network
    from headstart.finetune.summary import summary

    network = build_network(find_backbone(model), weights="none", image_size=image_size)
    plan = plan_network(network, TrainSettings(strategy=strategy, trainable=trainable or ""))
    return summary(network, plan)


def list_backbones(contains: str | None = None) -> list[dict[str, Any]]:
    """The catalogue, or every network whose name contains a word, timm's included."""
    from headstart.backbones.survey import survey_backbones

    return survey_backbones(contains)


def run_recipe(
    name: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a named experiment; a second call with the same folder goes on.

    Args:
        name: of the recipe.
        data: folder of its data.
        out: folder of the results.
        progress: silent where None.

    Raises:
        UsageError: an unknown name, or data that are not its own.
    """
    from headstart.recipes import RECIPES

    return dict(RECIPES.get(name).run(Path(data), Path(out), progress or Progress()))


def list_recipes() -> list[dict[str, str]]:
    """Name, summary, data and expectation of every recipe."""
    from headstart.recipes import RECIPES

    fields = ("name", "summary", "data", "expected")
    return [{field: getattr(spec, field) for field in fields} for spec in RECIPES]


def examine() -> dict[str, dict[str, object]]:
    """What `headstart doctor` prints: versions, device, weights, data, folders."""
    from headstart.survey import examine_installation

    return examine_installation()
