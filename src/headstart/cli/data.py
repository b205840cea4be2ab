"""`headstart data`: look at the data before anything is learnt from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Optional

import typer

NAME = "data"
SUMMARY = "Look at the data before anything is learnt from them."
EXAMPLE = (
    "Examples: headstart data preview flowers/ --model ResNet50 --out preview.png, "
    "headstart data convert fashion-mnist clothes/ --size 64 --channels 3"
)

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time
Number = Optional[int]  # noqa: UP045
SHOWN = 20


def preview(
    data: str = typer.Argument(help="Folder, manifest, pack or built-in name."),
    model: str = typer.Option("mini", help="Backbone whose preprocessing is shown."),
    image_size: Number = typer.Option(None, help="Input size in px.  [default: the network's own]"),
    image: Text = typer.Option(None, help="Path of the one image to show."),
    num: int = typer.Option(6, help="Images to show otherwise, one of each class in turn."),
    seed: int = typer.Option(0, help="Of their choice."),
    augment: Text = typer.Option(None, help="Draw views of this augmentation: a policy or a list."),
    test_data: Text = typer.Option(None, help="Folder or manifest of test images."),
    group_by: Text = typer.Option(None, help="Column, or regular expression on the path."),
    columns: Text = typer.Option(
        None, help="Columns of a manifest: label=finding,group=patient_id,path=file"
    ),
    crop_margin: float = typer.Option(0.0, help="Added around each box, a share of its sides."),
    out: Path = typer.Option(Path("preview.png"), help="The PNG to write."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Draw some images beside what the network sees of them, and say how they are prepared."""
    from headstart import api
    from headstart.cli.printing import print_json

    result = api.preview(
        data,
        out=out,
        model=model,
        image_size=image_size,
        image=image,
        num=num,
        seed=seed,
        augment=augment,
        test_data=test_data,
        group_by=group_by,
        columns=columns,
        crop_margin=crop_margin,
    )
    if json:
        print_json(result)
        return
    print(f"Pictures   {result['policy']}")
    for note in result["notes"]:
        print(f"Note       {note}")
    print(f"Written    {result['out']} ({len(result['images'])} images)")


def convert(
    data: str = typer.Argument(help="Folder, manifest, pack or built-in name."),
    out: Path = typer.Argument(help="New or empty folder, or one to go on with."),
    to: str = typer.Option(
        "folders", help="folders (of classes), or manifest (files and manifest.csv)."
    ),
    size: Number = typer.Option(None, help="Shorter side in px.  [default: as it is]"),
    channels: Number = typer.Option(None, help="1 (grey) or 3.  [default: as in the source]"),
    test_data: Text = typer.Option(None, help="Folder or manifest of test images."),
    group_by: Text = typer.Option(None, help="Column, or regular expression on the path."),
    columns: Text = typer.Option(
        None, help="Columns of a manifest: label=finding,group=patient_id,path=file"
    ),
    strict: bool = typer.Option(False, help="Stop at an image that cannot be read."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Write data as PNG files in class folders or beside a manifest; a second call goes on."""
    from headstart import api
    from headstart.cli.printing import print_json
    from headstart.progress import for_terminal

    result = api.convert(
        data,
        out,
        to=to,
        size=size,
        channels=channels,
        strict=strict,
        progress=for_terminal(),
        test_data=test_data,
        group_by=group_by,
        columns=columns,
    )
    if json:
        print_json(result)
        return
    for note in result["notes"]:
        print(f"Note       {note}")
    for folder, label in result["classes"].items():
        print(f"Class      '{label}' is the folder '{folder}'")
    for path, problem in list(result["problems"].items())[:SHOWN]:
        print(f"Left out   {path}: {problem}")
    if len(result["problems"]) > SHOWN:
        print(f"Left out   {len(result['problems']) - SHOWN:,} more; conversion.json names them")
    if result["left_aside"]:
        print(f"Left out   {result['left_aside']:,} images without a label")
    print(f"Written    {result['written']:,} pictures, {result['kept']:,} were there")
    print(f"Use        --data {result['load']}")


COMMANDS: dict[str, Callable[..., None]] = {"preview": preview, "convert": convert}
