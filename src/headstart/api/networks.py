"""Networks and the installation: what there is, what would learn, at which rate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from headstart.api.naming import folder_or_name
from headstart.progress import Progress


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
        data: as in `run`; images of a test part of its own are not looked at. Where a run would
            hold some out, they may be among those looked at: name a test part (folders, a
            column 'split', `test_data`) to keep them apart.
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
        "falls": found.falls,
        "out": str(target),
        "rates": list(found.rates),
        "losses": list(found.losses),
    }


def summarise(
    model: str,
    *,
    strategy: str = "full",
    trainable: str | None = None,
    image_size: int | None = None,
    head_blocks: str | None = None,
    pool: str | None = None,
) -> str:
    """The layers of a backbone, their shapes and parameters, and what a strategy would train.

    Args:
        model: name of the backbone; its weights are not needed.
        strategy: of fine-tuning.
        trainable: what learns, as in `RunSettings`.
        image_size: input size in px, None for the network's own.
        head_blocks: layers before the head, as in `RunSettings`.
        pool: of the last map, as in `RunSettings`.

    Raises:
        UsageError: an unknown name, or a choice that this network does not have.
    """
    from headstart.backbones import HeadBlocks, build_network, find_backbone
    from headstart.finetune import TrainSettings, plan_network
    from headstart.finetune.summary import summary

    network = build_network(
        find_backbone(model),
        weights="none",
        image_size=image_size,
        blocks=HeadBlocks.parse(head_blocks, pool),
    )
    plan = plan_network(network, TrainSettings(strategy=strategy, trainable=trainable or ""))
    return summary(network, plan)


def list_backbones(contains: str | None = None) -> list[dict[str, Any]]:
    """The catalogue, or every network whose name contains a word, timm's included."""
    from headstart.backbones.survey import survey_backbones

    return survey_backbones(contains)


def examine() -> dict[str, dict[str, object]]:
    """What `headstart doctor` prints: versions, device, weights, data, folders."""
    from headstart.survey import examine_installation

    return examine_installation()
