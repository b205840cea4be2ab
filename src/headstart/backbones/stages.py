"""Where a network can be cut: its stages in order, whose composition is the network itself.

A stage shares the parameters of its network and copies none, so freezing a stage freezes that
part of the network. The last stage ends in (B, D) features. No stage writes into its input, so
what stands at a cut can be kept and used again. Families are known by their class, which covers
every variant that timm builds of it; the exact class is asked for, because a subclass may run
its parts in another order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from headstart.backbones.catalogue import BackboneSpec
from headstart.errors import UsageError

Stages = dict[str, nn.Module]

GROUPS = 4  # of a transformer's blocks: as many cuts as a convolutional network has


class Part(nn.Module):
    """Some children of a network, run by the network's own methods.

    It holds a shallow copy of the network that knows only the children and parameters named,
    which are the very same objects.
    """

    def __init__(
        self, network: nn.Module, keep: Iterable[str], run: Callable[[Any, torch.Tensor], Any]
    ) -> None:
        """Keep these children and parameters; `run(part of the network, x)` is the forward."""
        super().__init__()
        kept = set(keep)
        view = copy.copy(network)
        for store in ("_modules", "_parameters", "_buffers"):
            held = getattr(network, store)
            view.__dict__[store] = {name: held[name] for name in held if name in kept}
        self.of = view
        self.run = run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Whatever `run` makes of x."""
        result: torch.Tensor = self.run(self.of, x)
        return result


class SpatialMean(nn.Module):
    """Global average pooling."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D, H, W) -> (B, D)."""
        return x.mean(dim=(2, 3))


def stage_modules(module: nn.Module, spec: BackboneSpec) -> Stages:
    """The stages of a network, first to last; run one after the other they equal `module(x)`.

    Args:
        module: the network without classifier, as `build_network` makes it.
        spec: names it in messages.

    Raises:
        UsageError: this network's stages are not known.
    """
    kind = type(module)
    find = FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}")
    if find is None:
        families = ", ".join(name.rpartition(".")[2] for name in FAMILIES)
        raise UsageError(
            f"The stages of {spec.name} are not known, so it cannot be cut or frozen in part. "
            f"Use it whole, or take a network of one of these kinds: {families}."
        )
    return find(module)


def has_stages(module: nn.Module) -> bool:
    """Whether `stage_modules` knows the network."""
    return f"{type(module).__module__}.{type(module).__qualname__}" in FAMILIES


def children(module: Any, *names: str) -> nn.Sequential:
    """These children, one after the other."""
    return nn.Sequential(*(module.get_submodule(name) for name in names))


def numbered(prefix: str, modules: Iterable[nn.Module]) -> Stages:
    """Modules under the prefix and their number from 0, as timm names their weights."""
    return {f"{prefix}{index}": module for index, module in enumerate(modules)}


def split_after(modules: nn.Sequential, ends: Callable[[str, nn.Module], bool]) -> list[nn.Module]:
    """Runs of modules, each up to and with one that `ends` accepts; what follows is the last."""
    runs: list[list[nn.Module]] = [[]]
    for name, module in modules.named_children():
        runs[-1].append(module)
        if ends(name, module):
            runs.append([])
    return [nn.Sequential(*run) for run in runs if run]


def mini_stages(module: Any) -> Stages:
    """The network in the box."""
    from headstart.backbones.mini import STAGES

    return {**{name: module.get_submodule(name) for name in STAGES}, "head": SpatialMean()}


def lenet_stages(module: Any) -> Stages:
    """LeNet-5: its children are its stages."""
    return dict(module.named_children())


def small_stages(module: Any) -> Stages:
    """SmallCNN: its blocks, then the mean over places."""
    return {**dict(module.named_children()), "head": SpatialMean()}


def resnet_stages(module: Any) -> Stages:
    """Timm's ResNet: ResNeXt, SE-ResNet and the -D variants with it."""
    layers = {name: m for name, m in module.named_children() if name.startswith("layer")}
    stem = children(module, "conv1", "bn1", "act1", "maxpool")
    return {"stem": stem, **layers, "head": children(module, "global_pool")}


def efficientnet_stages(module: Any) -> Stages:
    """Timm's EfficientNet: MobileNetV2 and MnasNet with it."""
    return {
        "stem": children(module, "conv_stem", "bn1"),
        **numbered("blocks", module.blocks),
        "head": children(module, "conv_head", "bn2", "global_pool"),
    }


def mobilenetv3_stages(module: Any) -> Stages:
    """Timm's MobileNetV3: it widens its features after pooling."""
    return {
        "stem": children(module, "conv_stem", "bn1"),
        **numbered("blocks", module.blocks),
        "head": children(module, "global_pool", "conv_head", "norm_head", "act2", "flatten"),
    }


def vgg_stages(module: Any) -> Stages:
    """Timm's VGG: a block ends with its pooling; the head holds the two dense layers."""
    blocks = split_after(module.features, lambda _, m: isinstance(m, nn.MaxPool2d))
    named = {f"block{index + 1}": block for index, block in enumerate(blocks)}
    return {**named, "head": children(module, "pre_logits", "head")}


def densenet_stages(module: Any) -> Stages:
    """Timm's DenseNet: a dense block and the transition after it make one stage."""
    names = [name for name, _ in module.features.named_children()]
    before_first = names[names.index("denseblock1") - 1]
    stem, *blocks = split_after(
        module.features, lambda name, _: name == before_first or name.startswith("transition")
    )
    named = {f"block{index + 1}": block for index, block in enumerate(blocks)}
    return {"stem": stem, **named, "head": children(module, "global_pool", "head_drop")}


def inception_stages(module: Any) -> Stages:
    """Timm's Inception V3: a stage ends where the map shrinks."""
    return {
        "stem1": children(module, "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Pool1"),
        "stem2": children(module, "Conv2d_3b_1x1", "Conv2d_4a_3x3", "Pool2"),
        "mixed5": children(module, *(f"Mixed_5{x}" for x in "bcd")),
        "mixed6": children(module, *(f"Mixed_6{x}" for x in "abcde")),
        "mixed7": children(module, *(f"Mixed_7{x}" for x in "abc")),
        "head": children(module, "global_pool", "head_drop"),
    }


def convnext_stages(module: Any) -> Stages:
    """Timm's ConvNeXt."""
    return {
        "stem": children(module, "stem"),
        **numbered("stages", module.stages),
        "head": children(module, "norm_pre", "head"),
    }


def regnet_stages(module: Any) -> Stages:
    """Timm's RegNet."""
    trunk = {name: module.get_submodule(name) for name in ("stem", "s1", "s2", "s3", "s4")}
    return {**trunk, "head": children(module, "final_conv", "head")}


def swin_stages(module: Any) -> Stages:
    """Timm's Swin transformer; between stages stand (B, H, W, D) maps."""
    return {
        "embed": children(module, "patch_embed"),
        **numbered("layers", module.layers),
        "head": children(module, "norm", "head"),
    }


def embed_patches(vit: Any, x: torch.Tensor) -> Any:
    """A transformer up to its first block."""
    return vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(x))))


def pool_tokens(vit: Any, x: torch.Tensor) -> Any:
    """A transformer after its last block."""
    return vit.forward_head(vit.norm(x))


def vit_stages(module: Any) -> Stages:
    """Timm's vision transformer, DINOv2 with it; between stages stand (B, tokens, D)."""
    embedding = ("patch_embed", "pos_drop", "patch_drop", "norm_pre")
    tokens = ("cls_token", "reg_token", "pos_embed")
    ending = ("norm", "attn_pool", "fc_norm", "head_drop", "head")
    count = len(module.blocks)
    bounds = [round(count * i / GROUPS) for i in range(GROUPS + 1)]
    groups = [module.blocks[begin:end] for begin, end in pairwise(bounds) if end > begin]
    return {
        "embed": Part(module, (*embedding, *tokens), embed_patches),
        **{f"quarter{index + 1}": group for index, group in enumerate(groups)},
        "head": Part(module, ending, pool_tokens),
    }


def alexnet_stages(module: Any) -> Stages:
    """Torchvision's AlexNet: a stage is a convolution with what follows it up to the next."""
    layers = list(module.features)
    starts = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    runs = [layers[begin:end] for begin, end in pairwise([*starts, len(layers)])]
    named = {f"conv{index + 1}": nn.Sequential(*run) for index, run in enumerate(runs)}
    return {**named, "head": nn.Sequential(module.avgpool, nn.Flatten(), module.classifier)}


GOOGLENET_STEM = ("conv1", "maxpool1", "conv2", "conv3", "maxpool2")


def googlenet_stem(network: Any, x: torch.Tensor) -> Any:
    """GoogLeNet's first layers, its own rescaling of the pixels before them."""
    x = network._transform_input(x)
    for name in GOOGLENET_STEM:
        x = network.get_submodule(name)(x)
    return x


def googlenet_stages(module: Any) -> Stages:
    """Torchvision's GoogLeNet: a stage ends where the map shrinks."""
    return {
        "stem": Part(module, GOOGLENET_STEM, googlenet_stem),
        "inception3": children(module, "inception3a", "inception3b", "maxpool3"),
        "inception4": children(module, *(f"inception4{x}" for x in "abcde"), "maxpool4"),
        "inception5": children(module, "inception5a", "inception5b"),
        "head": nn.Sequential(module.avgpool, nn.Flatten(), module.dropout),
    }


def blocked_stages(module: Any) -> Stages:
    """A network with head blocks knows its own."""
    stages: Stages = module.stages()
    return stages


FAMILIES: dict[str, Callable[[Any], Stages]] = {
    "headstart.backbones.blocks.BlockedNetwork": blocked_stages,
    "headstart.backbones.mini.MiniNet": mini_stages,
    "headstart.backbones.lenet.LeNet5": lenet_stages,
    "headstart.backbones.small.SmallCNN": small_stages,
    "torchvision.models.alexnet.AlexNet": alexnet_stages,
    "torchvision.models.googlenet.GoogLeNet": googlenet_stages,
    "timm.models.vgg.VGG": vgg_stages,
    "timm.models.inception_v3.InceptionV3": inception_stages,
    "timm.models.resnet.ResNet": resnet_stages,
    "timm.models.densenet.DenseNet": densenet_stages,
    "timm.models.efficientnet.EfficientNet": efficientnet_stages,
    "timm.models.mobilenetv3.MobileNetV3": mobilenetv3_stages,
    "timm.models.regnet.RegNet": regnet_stages,
    "timm.models.convnext.ConvNeXt": convnext_stages,
    "timm.models.vision_transformer.VisionTransformer": vit_stages,
    "timm.models.swin_transformer.SwinTransformer": swin_stages,
}
