"""CAM methods: one pure function each, and the registry.

Every function takes float32 tensors on any device. ReLU and scaling are done once, by :class:`cam_engine.CAM`.
"""

# isort: off
from cam_engine.methods.registry import Method as Method, available_methods as available_methods
from cam_engine.methods.registry import get_method as get_method, register as register
from cam_engine.methods.weighting import collapse as collapse

# One line a method, in the order of available_methods().
from cam_engine.methods.eigencam import eigencam as eigencam
from cam_engine.methods.gradcam import gradcam as gradcam
from cam_engine.methods.gradcampp import gradcampp as gradcampp
from cam_engine.methods.xgradcam import xgradcam as xgradcam
from cam_engine.methods.hirescam import hirescam as hirescam
from cam_engine.methods.layercam import layercam as layercam
from cam_engine.methods.eigengradcam import eigengradcam as eigengradcam
from cam_engine.methods.gradcam_elementwise import gradcam_elementwise as gradcam_elementwise
from cam_engine.methods.fullgrad import fullgrad as fullgrad
from cam_engine.methods.scorecam import scorecam as scorecam
from cam_engine.methods.ablationcam import ablationcam as ablationcam
from cam_engine.methods.kpcacam import kpcacam as kpcacam
from cam_engine.methods.fem import fem as fem
from cam_engine.methods.shapleycam import shapleycam as shapleycam
from cam_engine.methods.finercam import finercam as finercam
from cam_engine.methods.segeigencam import segeigencam as segeigencam
from cam_engine.methods.cam import cam as cam
from cam_engine.methods.smoothgradcampp import smoothgradcampp as smoothgradcampp
from cam_engine.methods.randomcam import randomcam as randomcam
# isort: on
