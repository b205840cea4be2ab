from dataclasses import dataclass

import pytest

from headstart.errors import UnknownNameError
from headstart.registry import Registry


@dataclass(frozen=True)
class Entry:
    name: str


def filled(*names):
    registry = Registry("backbone")
    for name in names:
        registry.register(Entry(name))
    return registry


def test_names_match_without_regard_to_case():
    registry = filled("ResNet50", "VGG16")
    assert registry.get("resnet50").name == "ResNet50"
    assert "vgg16" in registry
    assert registry.names() == ["ResNet50", "VGG16"]
    assert len(registry) == 2


def test_a_duplicate_is_refused():
    with pytest.raises(ValueError, match="'vgg16' is registered already"):
        filled("VGG16", "vgg16")


def test_an_unknown_name_offers_close_ones():
    with pytest.raises(UnknownNameError, match=r"Unknown backbone 'resnet5'. Did you mean 'ResNet"):
        filled("ResNet50", "VGG16").get("resnet5")
    with pytest.raises(UnknownNameError, match=r"Known are 'ResNet50', 'VGG16'\."):
        filled("ResNet50", "VGG16").get("zzz")
    with pytest.raises(UnknownNameError, match="Did you mean 'wide_resnet'"):
        filled("VGG16").get("wide_resne", also=lambda: ["wide_resnet"])
