"""Where weights come from: the package, a local file, a hub; never random by accident.

A choice is one of `WEIGHT_CHOICES` or the path of a file. 'auto' takes what is in the package; of
another network it looks for `ARCHITECTURE.safetensors` (`.pth`, `.pt`, `.bin`) in the folder
`HEADSTART_WEIGHTS` before any hub is asked. Nothing in a weights file is run: safetensors holds no
code and `torch.load` is told `weights_only`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from headstart.errors import UsageError, WeightsError
from headstart.files import digest_file

WEIGHT_CHOICES = ("auto", "bundled", "hub", "none")
WEIGHTS_VARIABLE = "HEADSTART_WEIGHTS"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")

State = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class WeightsRecord:
    """Which weights a network carries; goes into run, bundle and report.

    Attributes:
        source: 'bundled', 'file', 'hub', 'none' (random) or 'bundle' (a trained model's own).
        origin: the file or the hub's name for them, '' for random ones.
        licence: licence of these weights.
        file_digest: SHA-256 of the file they came from, '' where there is none.
    """

    source: str
    origin: str
    licence: str
    file_digest: str = ""

    def describe(self) -> str:
        """One line for people."""
        if self.source == "none":
            return "random (no pretrained weights, as asked)"
        checksum = f", sha256 {self.file_digest[:12]}" if self.file_digest else ""
        return f"{self.source}: {self.origin}{checksum}"


def bundled_file(architecture: str) -> Path:
    """The weights file inside the package; it may not exist."""
    return Path(str(resources.files("headstart") / "weights" / f"{architecture}.safetensors"))


def local_file(architecture: str) -> Path | None:
    """The weights of an architecture in `HEADSTART_WEIGHTS`, None where there are none."""
    folder = os.environ.get(WEIGHTS_VARIABLE)
    if not folder:
        return None
    for suffix in SUFFIXES:
        path = Path(folder) / f"{architecture}{suffix}"
        if path.is_file():
            return path
    return None


def read_state(path: Path) -> State:
    """Read a state dictionary from .safetensors, or from .pth with `weights_only`.

    Raises:
        WeightsError: the file is missing, of another kind, damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise WeightsError(
            f"The weights file '{path}' does not exist. Correct --weights, which takes a file "
            f"or one of {', '.join(WEIGHT_CHOICES)}."
        )
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"The weights file '{path}' must end in {', '.join(SUFFIXES)}. Convert it."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"The weights file '{path}' cannot be read ({type(error).__name__}): it is damaged "
            "or holds more than tensors. Download it again, or save its state_dict alone."
        ) from error
    return unwrap_state(state, path)


def unwrap_state(state: Any, path: Path) -> State:
    """Take the tensors out of the usual wrappers ('state_dict', 'model', 'module.')."""
    for key in ("state_dict", "model", "model_state"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"The weights file '{path}' holds no state dictionary. Save one.")
    tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
    return {k.removeprefix("module."): v for k, v in tensors.items()}


def load_state(
    module: torch.nn.Module, state: State, *, what: str, spare: str | tuple[str, ...] = ""
) -> None:
    """Load `state` into `module`, every key accounted for.

    Args:
        module: the network without classifier.
        state: its tensors.
        what: the network's name, for the message.
        spare: prefixes of keys that may be left over (the file's own classifier).

    Raises:
        WeightsError: keys or shapes differ; the message names the first ones.
    """
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    surplus = [k for k in state if k not in wanted and not (spare and k.startswith(spare))]
    wrong = [k for k, v in wanted.items() if k in state and state[k].shape != v.shape]
    if missing or surplus or wrong:
        parts = [
            f"{len(keys)} {word} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for keys, word in (
                (missing, "missing"),
                (surplus, "left over"),
                (wrong, "of a wrong shape"),
            )
            if keys
        ]
        raise WeightsError(
            f"The weights do not fit {what}: {'; '.join(parts)}. Take a file made for {what}."
        )
    module.load_state_dict({k: state[k] for k in wanted if k in state}, strict=False)


def state_digest(module: torch.nn.Module) -> str:
    """Digest of every parameter and buffer, by name; 32 hexadecimal characters."""
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"{key}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def choose_source(
    choice: str, *, default: str, architecture: str, name: str
) -> tuple[str, Path | None]:
    """Turn the user's choice into a source and, for local ones, the file.

    Args:
        choice: what the user typed.
        default: 'bundled', 'hub' or 'none', from the network's spec.
        architecture: names the files.
        name: of the network, as users know it.

    Raises:
        WeightsError: weights that no place has for this network.
        UsageError: an empty choice.
    """
    if not choice:
        raise UsageError(f"`weights` must be a file or one of {', '.join(WEIGHT_CHOICES)}.")
    if choice not in WEIGHT_CHOICES:
        return "file", Path(choice)
    if choice == "none":
        return "none", None
    if choice == "bundled" or (choice == "auto" and default == "bundled"):
        path = bundled_file(architecture)
        if not path.is_file():
            hub = "--weights hub, " * (default == "hub")
            raise WeightsError(
                f"The package holds no weights of {name}. Use {hub}--weights FILE, or "
                "--model mini, whose weights are in the box."
            )
        return "bundled", path
    if choice == "auto":
        path_or_none = local_file(architecture)
        if path_or_none is not None:
            return "file", path_or_none
    if default != "hub":
        raise WeightsError(no_hub(name, default))
    return "hub", None


def no_hub(name: str, default: str) -> str:
    """The sentence for a network of our own that no hub has weights of."""
    if default == "bundled":
        return f"No hub has weights of {name}: they are in the package. Use --weights bundled."
    return (
        f"There are no pretrained weights of {name}. Pass --weights none to begin with "
        "random ones, or --weights FILE for your own."
    )


def file_origin(path: Path) -> tuple[str, str]:
    """A file's name for records and its SHA-256."""
    return path.name, digest_file(path)
