"""One image in, heatmap and overlay out.

* `request.py`: what is asked, and what is answered
* `reading.py`: one image, a folder, a glob
* `one_image.py`: `explain`, `compare_methods`
* `detectors.py`: what is different for a detector: its parts
* `saving.py`: files, never one over another
* `auto_save.py`: every forward of a model saves where it looked
* `feature_maps.py`: what a model's layers hold, as pictures
* `layer_names.py`: the names that ``target_layer=`` takes
"""

from cam_engine.explanation.auto_save import AutoSave, autosave
from cam_engine.explanation.feature_maps import save_feature_maps
from cam_engine.explanation.layer_names import get_available_layer_names
from cam_engine.explanation.one_image import compare_methods, explain
from cam_engine.explanation.request import Explanation

__all__ = [
    "AutoSave",
    "Explanation",
    "autosave",
    "compare_methods",
    "explain",
    "get_available_layer_names",
    "save_feature_maps",
]
