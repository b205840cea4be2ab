"""`headstart export`: the model of a run as ONNX, with the proof that it answers alike."""

from __future__ import annotations

from typing import Any, Optional

import typer

from headstart.errors import quoted

NAME = "export"
EXAMPLE = "Example: headstart export runs/flowers --onnx --int8"

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time


def command(
    model: str = typer.Argument(metavar="RUN_OR_BUNDLE", help="Folder of a run or a bundle."),
    onnx: bool = typer.Option(True, "--onnx", help="Write ONNX, the format there is."),
    int8: bool = typer.Option(
        False, "--int8", help="A quantised file as well, with its cost in accuracy."
    ),
    with_resize: bool = typer.Option(
        False, "--with-resize", help="A second graph that also resizes, one picture at a time."
    ),
    out: Text = typer.Option(
        None, help="New folder.  [default: RUN/export, BUNDLE-onnx beside a bundle]"
    ),
    data: Text = typer.Option(
        None, help="Pictures to prove it on, labelled for accuracy.  [default: the run's test part]"
    ),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Export a model to ONNX and prove that it answers as its bundle."""
    from headstart.api import export
    from headstart.cli.printing import print_json, print_pairs
    from headstart.progress import for_terminal

    del onnx
    result = export(
        model, out=out, int8=int8, with_resize=with_resize, data=data, progress=for_terminal()
    )
    if json:
        print_json(
            {
                "out": str(result.out),
                "model_digest": result.model_digest,
                "files": result.files,
                "parity": result.parity,
            }
        )
        return
    files = [(name, megabytes(size)) for name, size in result.files.items()]
    print_pairs(f"Written to {result.out}", files)
    print_pairs("Proof", told(result.parity))
    print_pairs(
        "Next",
        [
            ("digest", result.model_digest),
            ("answer", f"headstart predict {quoted(result.out)} --engine onnx IMAGE..."),
            ("alone", f"python {quoted(result.out / 'answer.py')} IMAGE..."),
        ],
    )


def megabytes(size: int) -> str:
    """'12.0 MB', '4 kB'."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"


def told(parity: dict[str, Any]) -> list[tuple[str, str]]:
    """The proof in lines: each file, its largest difference, its agreement."""
    lines = [("images", parity["images"]), ("tolerance", f"{parity['tolerance']:g}")]
    for name, found in parity.items():
        if not isinstance(found, dict) or "same_class" not in found:
            continue
        said = (
            f"largest difference of a probability {found['largest_probability_difference']:.1e}, "
            f"same class on {found['same_class']:,} of {found['num_images']:,} images"
        )
        if "largest_pixel_difference" in found:
            said += (
                f"; pixels equal Pillow's on {found['equal_pixels_fraction']:.3%}, "
                f"at most {found['largest_pixel_difference']} apart"
            )
            if found["num_scaled_in_decoding"]:
                said += (
                    "; decoded at full size instead of scaled, "
                    f"{found['largest_probability_difference_of_full_decoding']:.1e} at most on "
                    f"{found['num_scaled_in_decoding']:,} large JPEGs"
                )
        if "verdict" in found:
            speed = found["speed"]
            said += (
                f"; {found['verdict']}; {found['size_ratio']:.2f} of the size, "
                f"{speed['speed_ratio']:.1f} times as fast "
                f"[{speed['speed_ratio_low']:.1f}, {speed['speed_ratio_high']:.1f}]"
            )
        lines.append((name, said))
    return lines
