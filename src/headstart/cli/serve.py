"""`headstart serve`: a model behind HTTP."""

from __future__ import annotations

from typing import Optional

import typer

NAME = "serve"
EXAMPLE = (
    "Example: headstart serve runs/flowers --port 8000, then: "
    "curl -F files=@rose.jpg http://127.0.0.1:8000/predict"
)

Text = Optional[str]  # noqa: UP045 - typer reads the annotation at run time


def command(
    model: str = typer.Argument(metavar="RUN_OR_BUNDLE", help="Folder of a run or a bundle."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on; beyond this machine only "
                             "with --token."),
    port: int = typer.Option(8000, help="0 takes a free one."),
    workers: int = typer.Option(1, help="Processes that answer; each holds the model."),
    engine: str = typer.Option("auto", help="auto (ONNX where the bundle has it), onnx, onnx-int8 "
                               "or torch."),
    device: str = typer.Option("auto", help="For torch: auto, cpu, cuda or mps."),
    precision: str = typer.Option("auto", help="For torch: auto, bfloat16 or float32."),
    expect_digest: Text = typer.Option(None, help="Refuse any model but the one with this digest."),
    token: str = typer.Option("", envvar="HEADSTART_TOKEN", show_default=False,
                              help="Asked of every request but health checks; better set by the "
                              "variable, because others see command lines."),
    insecure: bool = typer.Option(False, "--insecure", help="Listen beyond this machine without "
                                  "a token."),
    allow_host: list[str] = typer.Option([], help="A name by which the service may be called, "
                                         "where there is no token; may be repeated."),
    keep: Text = typer.Option(None, help="Keep uploads in this folder; nothing is kept otherwise."),
    log_names: bool = typer.Option(False, "--log-names", help="Write file names into the log."),
    formats: str = typer.Option("JPEG,PNG,WEBP,BMP,GIF,TIFF", help="Accepted formats."),
    max_files: int = typer.Option(32, help="Images in one request."),
    max_mib: float = typer.Option(64, help="Of one request, in MiB."),
    max_file_mib: float = typer.Option(20, help="Of one image's file, in MiB."),
    max_pixels: int = typer.Option(40_000_000, help="Of one image."),
    max_frames: int = typer.Option(100, help="Of one file; the first is looked at."),
    body_timeout: float = typer.Option(30, help="Seconds for a body to arrive."),
    decode_timeout: float = typer.Option(5, help="Seconds to decode one image."),
    decoders: int = typer.Option(0, min=0, max=64, help="Decoding processes a worker; 0 takes as "
                                 "many as cores, at most 8, and as fit a container's memory."),
    queue: int = typer.Option(32, help="While so many images wait in a worker, requests get 503."),
    batch: int = typer.Option(32, help="Most images in one forward pass."),
    window_ms: float = typer.Option(5, help="How long a batch waits for images being decoded."),
    drain: float = typer.Option(30, min=1, help="Seconds for requests in flight after SIGTERM."),
) -> None:  # fmt: skip
    """Serve a model over HTTP: POST /predict, /docs tells the rest."""
    from headstart.data.guarded.squares import DecodingLimits
    from headstart.serve.server import serve
    from headstart.serve.settings import MIB, RequestLimits, ServeSettings

    settings = ServeSettings(
        bundle=model, host=host, port=port, workers=workers, engine=engine, device=device,
        precision=precision, expect_digest=expect_digest, token=token, insecure=insecure,
        allowed_hosts=tuple(name.lower() for name in allow_host), keep=keep, log_names=log_names,
        requests=RequestLimits(
            max_request_bytes=round(max_mib * MIB),
            max_file_bytes=round(min(max_file_mib, max_mib) * MIB),
            max_files=max_files, body_timeout_s=body_timeout,
            buffer_bytes=max(RequestLimits.buffer_bytes, round(max_mib * MIB)),
        ),
        decoding=DecodingLimits(
            max_pixels=max_pixels, max_frames=max_frames,
            formats=tuple(name.strip().upper() for name in formats.split(",") if name.strip()),
        ),
        decoding_timeout_s=decode_timeout, decoders=decoders, queue_images=queue,
        max_batch=batch, window_ms=window_ms, drain_s=drain,
    )  # fmt: skip
    serve(settings, announce=lambda line: print(line, flush=True))
