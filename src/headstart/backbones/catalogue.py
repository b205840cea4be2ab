"""The catalogue: familiar names, the networks of our own, every timm network.

`find_backbone("ResNet50")` and `find_backbone("timm:resnet50")` name the same network. Nothing
here builds a network or imports timm, so that naming a backbone is instant.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.errors import UnknownNameError
from headstart.registry import Registry

TIMM_PREFIX = "timm:"
MINI_LICENCE = "research only: trained on ImageNet pictures (non-commercial research terms)"
# Of src/headstart/weights/mini2.safetensors; checked at every load.
MINI_SHA256 = "12d4c89f3bba8e48b515c99dfea326deeb045d910d242f8cd54a8f80f0e836cb"
# torchvision states no licence for its weights; its README leaves the terms to the user.
TORCHVISION_LICENCE = "not stated: trained on ImageNet, whose research terms may bind"


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """One network that can be asked for by name.

    Attributes:
        name: what users type.
        origin: 'own', 'timm' or 'torchvision', who defines the architecture.
        architecture: the name of the architecture at its origin.
        summary: a few words for the list.
        default_weights: 'bundled', 'hub', or 'none' where no pretrained ones exist: what is
            taken where the user does not choose.
        code_licence: licence of the architecture's code.
        weights_licence: licence of the default weights; 'see the hub' until they are looked up.
        image_size: default input size in px; 0 where the origin's configuration says.
        weights_sha256: what the bundled weights file must have, '' where none is bundled.
    """

    name: str
    origin: str
    architecture: str
    summary: str
    default_weights: str = "hub"
    code_licence: str = "Apache-2.0"
    weights_licence: str = "see the hub"
    image_size: int = 0
    weights_sha256: str = ""


BACKBONES: Registry[BackboneSpec] = Registry("backbone")

BACKBONES.register(
    BackboneSpec(
        name="mini",
        origin="own",
        architecture="mini2",  # the second network of this name
        summary="in the box: made for small pictures on a CPU",
        default_weights="bundled",
        weights_licence=MINI_LICENCE,
        image_size=96,
        weights_sha256=MINI_SHA256,
    )
)
BACKBONES.register(
    BackboneSpec(
        name="LeNet5",
        origin="own",
        architecture="lenet5",
        summary="the classic of 1998, to learn from scratch",
        default_weights="none",
        weights_licence="none: no pretrained weights exist",
        image_size=32,
    )
)
BACKBONES.register(
    BackboneSpec(
        name="SmallCNN",
        origin="own",
        architecture="smallcnn",
        summary="four plain blocks, to learn from scratch",
        default_weights="none",
        weights_licence="none: no pretrained weights exist",
        image_size=64,
    )
)

_FROM_TORCHVISION = (
    ("AlexNet", "alexnet", "the network that began it in 2012"),
    ("GoogLeNet", "googlenet", "the first Inception, 2014"),
)
for _name, _architecture, _summary in _FROM_TORCHVISION:
    BACKBONES.register(
        BackboneSpec(
            name=_name,
            origin="torchvision",
            architecture=_architecture,
            summary=_summary,
            code_licence="BSD-3-Clause",
            weights_licence=TORCHVISION_LICENCE,
        )
    )

# Name, timm's architecture, a few words, input size where it is not timm's own.
_FROM_TIMM = (
    ("VGG16", "vgg16", "the tutorials' choice, large and slow", 0),
    ("VGG19", "vgg19", "larger and slower still", 0),
    ("InceptionV3", "inception_v3", "the third Inception, 299 px", 0),
    ("ResNet50", "resnet50", "the usual reference", 0),
    ("DenseNet121", "densenet121", "the usual choice for X-rays", 0),
    ("MobileNetV2", "mobilenetv2_100", "for phones", 0),
    ("MobileNetV3Small", "mobilenetv3_small_100", "for phones, the fastest here", 0),
    ("EfficientNetB0", "efficientnet_b0", "accurate for its size", 0),
    ("EfficientNetB1", "efficientnet_b1", "B0 a little wider and deeper", 0),
    ("EfficientNetB2", "efficientnet_b2", "a step larger", 0),
    ("EfficientNetB3", "efficientnet_b3", "a step larger", 0),
    ("EfficientNetB4", "efficientnet_b4", "a step larger", 0),
    ("EfficientNetB5", "efficientnet_b5", "wants a GPU", 0),
    ("EfficientNetB6", "tf_efficientnet_b6", "wants a GPU", 0),
    ("EfficientNetB7", "tf_efficientnet_b7", "wants a GPU, 600 px", 0),
    ("ConvNeXtTiny", "convnext_tiny", "a modern convolutional network", 0),
    ("ViTSmall", "vit_small_patch16_224", "a transformer", 0),
    # 16 x 16 patches of 14 px; the 518 px it was trained at cost ten times as much.
    ("DINOv2Small", "vit_small_patch14_dinov2", "a transformer, trained without labels", 224),
)
for _name, _architecture, _summary, _size in _FROM_TIMM:
    BACKBONES.register(
        BackboneSpec(
            name=_name,
            origin="timm",
            architecture=_architecture,
            summary=_summary,
            image_size=_size,
        )
    )


def find_backbone(name: str) -> BackboneSpec:
    """The spec of a catalogue name, of 'timm:NAME', or of a plain timm architecture name.

    Raises:
        UnknownNameError: no such network; the message offers close names.
    """
    if name in BACKBONES:
        return BACKBONES.get(name)
    architecture = name[len(TIMM_PREFIX) :] if name.startswith(TIMM_PREFIX) else name
    known = timm_architectures()
    if architecture in known:
        return timm_spec(architecture)
    raise UnknownNameError(BACKBONES.unknown(architecture, known))


def timm_spec(architecture: str) -> BackboneSpec:
    """The spec of a timm network under its own name."""
    return BackboneSpec(
        name=architecture, origin="timm", architecture=architecture, summary="a network of timm"
    )


def timm_architectures() -> list[str]:
    """The plain architecture names of timm's classification networks (imports timm)."""
    import timm

    return list(timm.list_models())


def known_architectures(origin: str) -> list[str]:
    """The architectures of one origin that a bundle may name; none for a foreign origin."""
    if origin == "timm":
        return timm_architectures()
    return [spec.architecture for spec in BACKBONES if spec.origin == origin]
