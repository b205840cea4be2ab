"""A service on a loopback port in a thread of this process, and a small bundle to serve."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image
from uvicorn import Server

from headstart.backbones import build_network, find_backbone
from headstart.bundle import FittedHead, save_bundle
from headstart.bundle.confidence import Confidence, Decision
from headstart.conformal import ConformalRule
from headstart.files import digest_file, write_json
from headstart.outliers import fit_mahalanobis
from headstart.serve import RequestLimits, ServeSettings
from headstart.serve.app import create_app
from headstart.serve.gate import Gate
from headstart.serve.server import bind, server_config
from headstart.serve.service import Service

CLASSES = ("cat", "dog", "ötter")
SIZE = 32


def write_bundle(folder: Path) -> Path:
    """A bundle of an untrained network that gives sets and strangeness too."""
    network = build_network(find_backbone("mini"), weights="none", image_size=SIZE, seed=3)
    generator = torch.Generator().manual_seed(0)
    head = FittedHead.linear(
        torch.randn(3, network.num_features, generator=generator), torch.zeros(3), penalty=0.1
    )
    save_bundle(
        folder,
        network=network,
        head=head,
        class_names=CLASSES,
        about={},
        confidence=strangeness(network.num_features),
    )
    return folder


def strangeness(num_features: int) -> Confidence:
    """Sets at a middling threshold, and a distance that calls everything unknown."""
    rows = np.random.default_rng(0).normal(size=(60, num_features)).astype(np.float32)
    labels = np.repeat(np.arange(3), 20)
    return Confidence(
        temperature=1.5,
        sets=ConformalRule(alpha=0.1, thresholds=(0.7, 0.7, 0.7), num_images=(60, 60, 60)),
        outliers=fit_mahalanobis(rows, labels, num_components=8),
        outlier_threshold=0.0,
        decision=Decision(positive=CLASSES[1], index=1, threshold=0.2, rule="sensitivity:0.9"),
    )


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Change a file of a bundle and its digest, as somebody who knows the format would."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = digest_file(folder / name)
    write_json(folder / "manifest.json", manifest)


def encoded(seed: int = 0, format: str = "PNG", size: tuple[int, int] = (60, 44)) -> bytes:
    """A picture of noise over a gradient."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


@dataclass
class Live:
    """A running service.

    Attributes:
        url: where it listens.
        client: speaks HTTP with it.
        service: its state, in another thread.
    """

    url: str
    port: int
    client: httpx.Client
    service: Service

    def raw(self, timeout_s: float = 20) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)


def settings_for(bundle: Path, **changes: object) -> ServeSettings:
    """Quick and small: one decoder process, float32."""
    limits = changes.pop("requests", {})
    return ServeSettings(
        bundle=str(bundle),
        port=0,
        decoders=1,
        precision="float32",
        engine="torch",
        requests=RequestLimits(**limits),
        **changes,
    )


@contextlib.contextmanager
def running(settings: ServeSettings) -> Iterator[Live]:
    """Serve in a thread until the block ends; loading is over when it begins."""
    gates: list[Gate] = []
    listener = bind(settings)
    port = listener.getsockname()[1]

    def factory() -> Gate:
        gates.append(create_app(settings))
        return gates[0]

    server = Server(server_config(settings, factory))
    loaded = threading.Event()

    async def serve() -> None:
        main = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        await gates[0].service.ready()
        loaded.set()
        await main

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert loaded.wait(120)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            yield Live(url=url, port=port, client=client, service=gates[0].service)
    finally:
        server.should_exit = True
        thread.join(60)
