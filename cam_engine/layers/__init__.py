"""Layers of a model.

* `naming.py`: their dotted names;  `friendly.py`: names that people use, such as stages of YOLO
* `listing.py`: those that can be explained
* `choosing.py`: what `layers=` means
* `auto.py`: what `"auto"` picks
* `taps.py`: where a chosen layer's output is captured, and how it is seen as maps
"""

from cam_engine.layers.auto import auto_layer, encoder_layer
from cam_engine.layers.choosing import LayerSpec, layers_within, resolve_layers
from cam_engine.layers.listing import LayerInfo, available_layers
from cam_engine.layers.naming import module_names
from cam_engine.layers.taps import taps_of, views_of

__all__ = [
    "LayerInfo",
    "LayerSpec",
    "auto_layer",
    "available_layers",
    "encoder_layer",
    "layers_within",
    "module_names",
    "resolve_layers",
    "taps_of",
    "views_of",
]
