"""The model that a name on the command line stands for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from torch import nn

from cam_engine.loading.models import is_libreyolo


def import_model(path: str) -> Any:
    """The model that ``package.module:name`` stands for: an object, or what a function or class returns.

    The current folder is searched too, last: a file of it that has the name of a package does not hide that.

    Raises:
        ValueError: Not of that form, or no such name in the module.
        ImportError: No such module.
    """
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"MODEL is package.module:name, such as torchvision.models:resnet18, not {path!r}.")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    named: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(named, part):
            near = ", ".join(name for name in dir(named) if not name.startswith("_"))[:300]
            raise ValueError(f"{module_name!r} has no {attribute!r}; it has {near}.")
        named = getattr(named, part)
    is_model = isinstance(named, nn.Module) or (is_libreyolo(named) and not isinstance(named, type))
    return named if is_model or not callable(named) else named()
