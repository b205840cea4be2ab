"""Which backbone? Many networks tried on a part of the training images, in one pass each."""

from headstart.studies.quick.choosing import QuickResult, choose_quickly
from headstart.studies.quick.settings import QuickSettings

__all__ = ["QuickResult", "QuickSettings", "choose_quickly"]
