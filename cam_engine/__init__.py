"""Class activation maps for any PyTorch vision model, from one forward and one gradient call.

>>> from cam_engine import CAM
>>> cam = CAM(model, methods=("eigencam", "gradcam"), layers="auto")   # doctest: +SKIP
>>> cam(images)["gradcam"]                                              # doctest: +SKIP

The package knows no trainer and no logger, and never changes the model that it explains. torch is imported where a name
that needs it is asked for: `cam_engine.metrics` and `cam_engine.render` do without, and so does who reads records.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cam_engine.basecam import BaseCAM, register_class
    from cam_engine.cam import CAM
    from cam_engine.explanation import (
        AutoSave,
        Explanation,
        autosave,
        compare_methods,
        explain,
        get_available_layer_names,
        save_feature_maps,
    )
    from cam_engine.layers import LayerInfo, available_layers
    from cam_engine.methods import available_methods, register
    from cam_engine.result import CAMResult

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

# A module must not be called as a name that it offers: importing the module would hide the name.
_HOMES = {
    "basecam": ("BaseCAM", "register_class"),
    "cam": ("CAM",),
    "explanation": (
        "AutoSave",
        "Explanation",
        "autosave",
        "compare_methods",
        "explain",
        "get_available_layer_names",
        "save_feature_maps",
    ),
    "layers": ("LayerInfo", "available_layers"),
    "methods": ("available_methods", "register"),
    "result": ("CAMResult",),
}
_PACKAGES = ("detect", "exchange", "methods", "methods_as_classes", "metrics", "render", "targets")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for."""
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
