"""The catalogue: familiar names, the network in the box, every timm network.

`find_backbone("ResNet50")` and `find_backbone("timm:resnet50")` name the same network. Nothing
here builds a network or imports timm, so that listing the catalogue is instant.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.errors import UnknownNameError
from headstart.registry import Registry

TIMM_PREFIX = "timm:"
MINI_LICENCE = "research only: trained on ImageNet pictures (non-commercial research terms)"


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """One network that can be asked for by name.

    Attributes:
        name: what users type.
        origin: 'own' or 'timm', who defines the architecture.
        architecture: the name of the architecture at its origin.
        summary: a few words for the list.
        default_weights: 'bundled' or 'hub', what is taken where the user does not choose.
        code_licence: licence of the architecture's code.
        weights_licence: licence of the default weights; 'see the hub' until they are looked up.
        image_size: default input size in px; 0 where the origin's configuration says.
    """

    name: str
    origin: str
    architecture: str
    summary: str
    default_weights: str = "hub"
    code_licence: str = "Apache-2.0"
    weights_licence: str = "see the hub"
    image_size: int = 0


BACKBONES: Registry[BackboneSpec] = Registry("backbone")

BACKBONES.register(
    BackboneSpec(
        name="mini",
        origin="own",
        architecture="mini",
        summary="the network in the box: 5.9 M parameters, made for small pictures on a CPU",
        default_weights="bundled",
        weights_licence=MINI_LICENCE,
        image_size=96,
    )
)

_FAMILIAR = (
    ("VGG16", "vgg16", "138 M parameters with its classifier, slow, the tutorials' choice"),
    ("VGG19", "vgg19", "144 M parameters with its classifier, slower still"),
    ("ResNet50", "resnet50", "25.6 M parameters, the usual reference"),
    ("DenseNet121", "densenet121", "8 M parameters, the usual choice for X-rays"),
    ("EfficientNetB0", "efficientnet_b0", "5.3 M parameters"),
    ("EfficientNetB1", "efficientnet_b1", "7.8 M parameters"),
    ("EfficientNetB2", "efficientnet_b2", "9.1 M parameters"),
    ("EfficientNetB3", "efficientnet_b3", "12 M parameters"),
    ("EfficientNetB4", "efficientnet_b4", "19 M parameters"),
    ("EfficientNetB5", "efficientnet_b5", "30 M parameters"),
    ("EfficientNetB6", "tf_efficientnet_b6", "43 M parameters"),
    ("EfficientNetB7", "tf_efficientnet_b7", "66 M parameters"),
    ("InceptionV3", "inception_v3", "24 M parameters, 299 px"),
    ("MobileNetV2", "mobilenetv2_100", "3.5 M parameters, for phones"),
    ("MobileNetV3Small", "mobilenetv3_small_100", "2.5 M parameters, for phones"),
    ("ConvNeXtTiny", "convnext_tiny", "29 M parameters"),
    ("ViTSmall", "vit_small_patch16_224", "22 M parameters, a transformer"),
)
for _name, _architecture, _summary in _FAMILIAR:
    BACKBONES.register(
        BackboneSpec(name=_name, origin="timm", architecture=_architecture, summary=_summary)
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
        return BackboneSpec(
            name=architecture,
            origin="timm",
            architecture=architecture,
            summary="a network of timm",
        )
    raise UnknownNameError(BACKBONES.unknown(architecture, known))


def timm_architectures() -> list[str]:
    """The plain architecture names of timm's classification networks (imports timm)."""
    import timm

    return list(timm.list_models())
