"""Class activation maps for any PyTorch vision model, from one forward and one gradient call.

>>> from cam_engine import CAM
>>> cam = CAM(model, methods=("eigencam", "gradcam"), layers="auto")   # doctest: +SKIP
>>> cam(images)["gradcam"]                                              # doctest: +SKIP

The package knows no trainer and no logger, and never changes the model that it explains.
"""

from cam_engine.autosave import AutoSave, autosave
from cam_engine.basecam import BaseCAM, register_class
from cam_engine.cam import CAM, CAMResult
from cam_engine.explain import Explanation, compare_methods, explain
from cam_engine.featuremaps import save_feature_maps
from cam_engine.layers import LayerInfo, available_layers
from cam_engine.methods import available_methods, register
from cam_engine.names import get_available_layer_names

__all__ = [
    "CAM",
    "AutoSave",
    "BaseCAM",
    "CAMResult",
    "Explanation",
    "LayerInfo",
    "autosave",
    "available_layers",
    "available_methods",
    "compare_methods",
    "explain",
    "get_available_layer_names",
    "register",
    "register_class",
    "save_feature_maps",
]
__version__ = "0.1.0"
