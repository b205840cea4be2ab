"""Data sets written out as pictures: class folders, or files beside a manifest."""

from headstart.data.converted.plan import TARGETS, ConversionSettings
from headstart.data.converted.writing import Conversion, convert_table

__all__ = ["TARGETS", "Conversion", "ConversionSettings", "convert_table"]
