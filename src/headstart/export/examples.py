"""Two programs that answer without Headstart, written beside an export, to be read and changed.

`answer.py` needs onnxruntime, Pillow and NumPy; it takes all it must know from the ONNX file.
`answer_torch.py` builds the network with PyTorch (and timm or torchvision, where it is theirs) from
`weights.safetensors`; networks of Headstart itself come as `network.py`, a copy of their source.
Both decode as Pillow does; Headstart's own decoder agrees for 8-bit colour and grey pictures and
says more of others (transparency, 16 bits, truncated files).

They do not stand in the manifest, because they are there to be changed.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from headstart.bundle import Classifier
from headstart.files import write_text

ANSWER = "answer.py"
ANSWER_TORCH = "answer_torch.py"
NETWORK = "network.py"

ONNX_EXAMPLE = '''\
"""Answer from model.onnx without Headstart: python answer.py PICTURE...

Needs: pip install onnxruntime pillow numpy
"""

import json
import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model = Path(__file__).with_name("model.onnx")
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
stored = session.get_modelmeta().custom_metadata_map
about = {key.removeprefix("headstart."): json.loads(value) for key, value in stored.items()}
names, how, rule = about["class_names"], about["preprocessing"], about["sets"]

for path in sys.argv[1:]:
    image, side = Image.open(path), 2 * how["size"]
    scale = max(s for s in (1, 2, 4, 8) if s == 1 or min(image.size) // s >= side)
    image.draft(None, (image.width // scale, image.height // scale))  # a JPEG alone obeys
    image = ImageOps.exif_transpose(image).convert("RGB")
    kernel = Image.Resampling[how["interpolation"].upper()]
    pixels = np.asarray(image.resize((how["size"], how["size"]), kernel))[None]
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(outputs, {"pixels": pixels})))
    chances = found["probabilities"][0]
    answer = {"path": path, "class": names[chances.argmax()], "confidence": float(chances.max())}
    answer["probabilities"] = dict(zip(names, chances.tolist()))
    if call := about["decision"]:
        answer["positive"] = call["positive"]
        answer["called_positive"] = float(chances[call["index"]]) >= call["threshold"]
    if rule is not None and rule["score"] == "lac":
        answer["set"] = [n for n, p, t in zip(names, chances, rule["thresholds"]) if 1 - p <= t]
    if "outlier_score" in found and about["outlier_threshold"] is not None:
        answer["unknown"] = bool(found["outlier_score"][0] > about["outlier_threshold"])
    print(json.dumps(answer))
'''

TORCH_EXAMPLE = '''\
"""Answer from weights.safetensors without Headstart: python answer_torch.py PICTURE...

Needs: pip install torch safetensors pillow numpy{needs}
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
{imports}
from PIL import Image, ImageOps
from safetensors.torch import load_file

folder = Path(__file__).parent
about = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
state = load_file(folder / "weights.safetensors")
state = {{k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}}
{build}
network.load_state_dict({{k[9:]: v for k, v in state.items() if k.startswith("backbone.")}})
network.eval()
how, sure = about["preprocessing"], about.get("confidence", {{}})
temperature, mirrors = sure.get("temperature", 1.0), sure.get("tta") == "flip"

for path in sys.argv[1:]:
    image, side = Image.open(path), 2 * how["size"]
    scale = max(s for s in (1, 2, 4, 8) if s == 1 or min(image.size) // s >= side)
    image.draft(None, (image.width // scale, image.height // scale))  # a JPEG alone obeys
    image = ImageOps.exif_transpose(image).convert("RGB")
    kernel = Image.Resampling[how["interpolation"].upper()]
    pixels = np.array(image.resize((how["size"], how["size"]), kernel))
    views = np.stack([pixels, pixels[:, ::-1]] if mirrors else [pixels])
    x = (torch.from_numpy(views) / 255 - torch.tensor(how["mean"])) / torch.tensor(how["std"])
    with torch.inference_mode():
        values = network(x.permute(0, 3, 1, 2)).half().float()
    for number in range(about["head"]["num_layers"]):
        values = values.relu() if number else values
        values = values @ state[f"head.{{number}}.weight"].T + state[f"head.{{number}}.bias"]
    chances = (values.mean(0) / temperature).softmax(0)
    answer = {{"path": path, "class": about["class_names"][chances.argmax()]}}
    answer["probabilities"] = dict(zip(about["class_names"], chances.tolist()))
    if call := sure.get("decision"):
        answer["positive"] = call["positive"]
        answer["called_positive"] = float(chances[call["index"]]) >= call["threshold"]
    print(json.dumps(answer))
'''


def write_examples(folder: Path, classifier: Classifier) -> list[str]:
    """Write the programs beside an export.

    Args:
        folder: of the exported files.
        classifier: whose engine is PyTorch's.

    Returns:
        The names of the files.
    """
    write_text(folder / ANSWER, ONNX_EXAMPLE)
    if classifier.about["schema_version"] == 1 or not is_plain(classifier):
        return [ANSWER]  # tensors of other names, or a network that no library builds so
    needs, imports, build = building(classifier)
    program = TORCH_EXAMPLE.format(needs=needs, imports=imports, build=build)
    write_text(folder / ANSWER_TORCH, program)
    names = [ANSWER, ANSWER_TORCH]
    if classifier.network.spec.origin == "own":
        home = inspect.getmodule(type(classifier.network.module))
        assert home is not None
        write_text(folder / NETWORK, inspect.getsource(home))
        names.append(NETWORK)
    return names


def is_plain(classifier: Classifier) -> bool:
    """Whether the network is what its origin builds, with nothing put around or into it."""
    from headstart.backbones.origins import make_architecture

    module, size = classifier.network.module, classifier.extractor.preprocessing.size
    fresh = make_architecture(classifier.network.spec, size).module
    return type(fresh) is type(module) and set(fresh.state_dict()) == set(module.state_dict())


def building(classifier: Classifier) -> tuple[str, str, str]:
    """What else to install, the imports, and the lines that make `network`."""
    from headstart.backbones.origins import TORCHVISION, timm_config

    spec, size = classifier.network.spec, classifier.extractor.preprocessing.size
    if spec.origin == "own":
        name = type(classifier.network.module).__name__
        return "", f"from network import {name}", f"network = {name}()"
    if spec.origin == "torchvision":
        layer, options, _ = TORCHVISION[spec.architecture]
        given = "".join(f", {key}={value!r}" for key, value in options.items())
        lines = (
            f"network = torchvision.models.{spec.architecture}(weights=None{given})\n"
            f'network.set_submodule("{layer}", torch.nn.Identity())'
        )
        return " torchvision", "import torchvision", lines
    config = timm_config(spec.architecture)
    fixed = bool(config.get("fixed_input_size")) and size != int(config["input_size"][-1])
    option = f", img_size={size}" if fixed else ""
    line = f'network = timm.create_model("{spec.architecture}", num_classes=0{option})'
    return " timm", "import timm", line
