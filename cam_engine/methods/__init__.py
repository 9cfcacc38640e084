"""CAM methods: one pure function each, and the registry.

Every function takes float32 tensors on any device. ReLU and scaling are done once, by :class:`cam_engine.CAM`.
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
from cam_engine.methods.gradcam_elementwise import gradcam_elementwise
from cam_engine.methods.fullgrad import fullgrad
from cam_engine.methods.scorecam import scorecam
from cam_engine.methods.ablationcam import ablationcam
from cam_engine.methods.kpcacam import kpcacam
from cam_engine.methods.fem import fem
from cam_engine.methods.shapleycam import shapleycam
from cam_engine.methods.finercam import finercam
from cam_engine.methods.segeigencam import segeigencam
from cam_engine.methods.cam import cam
from cam_engine.methods.smoothgradcampp import smoothgradcampp
from cam_engine.methods.exchangecam import exchangecam
from cam_engine.methods.randomcam import randomcam
from cam_engine.methods.registry import Method, available_methods, get_method, register
from cam_engine.methods.weighting import collapse
# isort: on

__all__ = [
    "Method",
    "ablationcam",
    "available_methods",
    "cam",
    "collapse",
    "eigencam",
    "eigengradcam",
    "exchangecam",
    "fem",
    "finercam",
    "fullgrad",
    "get_method",
    "gradcam",
    "gradcam_elementwise",
    "gradcampp",
    "hirescam",
    "kpcacam",
    "layercam",
    "randomcam",
    "register",
    "scorecam",
    "segeigencam",
    "shapleycam",
    "smoothgradcampp",
    "xgradcam",
]
