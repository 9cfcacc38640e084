"""One image in, heatmap and overlay out.

* `one.py`: `explain`, `compare_methods`
* `pictures.py`: reading one image, a folder, a glob
* `detectors.py`: what is different for a detector: its parts
* `saving.py`: files, never one over another
"""

from cam_engine.explanation.one import Explanation, compare_methods, explain

__all__ = ["Explanation", "compare_methods", "explain"]
