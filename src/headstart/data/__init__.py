"""Images and labels: where they come from, and the one way to decode them."""

from headstart.data.boxes import crop_to_box
from headstart.data.builtin import DATASETS, DatasetSpec
from headstart.data.colour import to_rgb
from headstart.data.decoding import DECODER_VERSION, DecodingError, decode, digest_of
from headstart.data.folders import printable
from headstart.data.labels import class_notes
from headstart.data.sources import load_images, load_table, load_unlabelled_or_labelled

__all__ = [
    "DATASETS",
    "DECODER_VERSION",
    "DatasetSpec",
    "DecodingError",
    "class_notes",
    "crop_to_box",
    "decode",
    "digest_of",
    "load_images",
    "load_table",
    "load_unlabelled_or_labelled",
    "printable",
    "to_rgb",
]
