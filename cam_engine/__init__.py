"""Class activation maps for any PyTorch vision model, from one forward and one gradient call.

>>> from cam_engine import CAM
>>> cam = CAM(model, methods=("eigencam", "gradcam"), layers="auto")   # doctest: +SKIP
>>> cam(images)["gradcam"]                                              # doctest: +SKIP

The package knows no trainer and no logger, and never changes the model that it explains.
"""

from cam_engine.cam import CAM, CAMResult
from cam_engine.explain import Explanation, compare_methods, explain
from cam_engine.layers import LayerInfo, available_layers
from cam_engine.methods import available_methods, register
from cam_engine.names import get_available_layer_names

__all__ = [
    "CAM",
    "CAMResult",
    "Explanation",
    "LayerInfo",
    "available_layers",
    "available_methods",
    "compare_methods",
    "explain",
    "get_available_layer_names",
    "register",
]
__version__ = "0.1.0"
