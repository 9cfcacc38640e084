"""CAM methods: one pure function each, and the registry.

Every function takes float32 tensors on any device and returns the signed map (B, h, w); ReLU and scaling are done once,
by :class:`cam_engine.CAM`.
"""

# The order of these imports is the order of available_methods().
# isort: off
from cam_engine.methods.eigencam import eigencam
from cam_engine.methods.gradcam import gradcam
from cam_engine.methods.gradcampp import gradcampp
from cam_engine.methods.xgradcam import xgradcam
from cam_engine.methods.hirescam import hirescam
from cam_engine.methods.layercam import layercam
from cam_engine.methods.eigengradcam import eigengradcam
from cam_engine.methods.registry import Method, available_methods, get_method, metric_name, register
# isort: on

__all__ = [
    "Method",
    "available_methods",
    "eigencam",
    "eigengradcam",
    "get_method",
    "gradcam",
    "gradcampp",
    "hirescam",
    "layercam",
    "metric_name",
    "register",
    "xgradcam",
]
