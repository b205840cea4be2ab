"""A bundle as ONNX: graphs, the proof that they answer alike, int8, examples."""

from headstart.export.job import ExportResult, ExportSettings, export_bundle

__all__ = ["ExportResult", "ExportSettings", "export_bundle"]
