"""Export: networks for other programs, ONNX of any, NIR of the spiking branch. Needs `respike[export]`."""

from respike.zoo.export.nir import build_nir, export_nir
from respike.zoo.export.onnx import OnnxCheck, export_onnx

__all__ = ["OnnxCheck", "build_nir", "export_nir", "export_onnx"]
