"""The model that a name on the command line stands for."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from torch import nn

from cam_engine.loading.models import is_libreyolo, load_model

FORMS = (
    "best.pt or a .yaml (ultralytics), timm:NAME, torchvision:NAME, hf:FOLDER (transformers), or package.module:name of a model "
    "or of a function that makes one"
)


def import_model(name: str, *, pretrained: bool = False, num_classes: int | None = None) -> Any:
    """The model that ``name`` stands for.

    Args:
        name: A file of ultralytics; ``timm:NAME``, ``torchvision:NAME``; ``hf:FOLDER`` of a transformers model; or
            ``package.module:name`` of an object, or of a function or class, which is called. The current folder is searched too,
                last: a file of it that has the name of a package does not hide that.
        pretrained: Of timm and torchvision, with the weights that the library downloads.
        num_classes: Of timm and torchvision, with a head of so many classes.

    Raises:
        ValueError: Of no such form, no such name in the module, or an argument that the form does not have.
        ImportError: No such module.
        OSError: No such file or folder.

    >>> from cam_engine.loading import import_model
    >>> import_model("torch.nn:ReLU")
    ReLU()
    """
    kind, colon, rest = name.partition(":")
    zoo = bool(colon) and kind in ("timm", "torchvision")
    if (pretrained or num_classes is not None) and not zoo:
        raise ValueError(f"--pretrained and --num-classes are for timm:NAME and torchvision:NAME, not {name!r}.")
    if zoo:
        return _from_zoo(kind, rest, pretrained, {} if num_classes is None else {"num_classes": num_classes})
    if colon and kind == "hf":
        return _from_transformers(Path(rest))
    if Path(name).suffix in (".pt", ".pth", ".yaml", ".yml"):
        return _from_ultralytics(name)
    return _imported(name)


def looks_untrained(model: Any) -> bool:
    """Has no normalisation layer of the model ever seen a batch? (A model without such layers is given the benefit of doubt.)"""
    norms = [
        module for module in load_model(model).net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    means = [norm.running_mean for norm in norms if norm.running_mean is not None]
    return bool(means) and not any(bool(mean.any()) for mean in means)


def _from_zoo(kind: str, name: str, pretrained: bool, settings: dict[str, Any]) -> Any:
    if kind == "timm":
        import timm

        try:
            return timm.create_model(name, pretrained=pretrained, **settings)
        except RuntimeError as error:
            near = ", ".join(timm.list_models(f"*{name[:6]}*")[:8])
            raise ValueError(f"timm: {error}; near are {near or 'those that timm.list_models() lists'}.") from error
    from torchvision import models

    settings["weights"] = "DEFAULT" if pretrained else None
    if not pretrained and "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        settings["weights_backbone"] = None
    return models.get_model(name, **settings)


def _from_transformers(folder: Path) -> Any:
    import transformers

    if not folder.is_dir():
        raise FileNotFoundError(f"hf: takes a folder written by save_pretrained(); there is none at {str(folder)!r}.")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    architecture = next(iter(config.architectures or []), None)
    made_by = getattr(transformers, architecture or "", transformers.AutoModelForImageClassification)
    return made_by.from_pretrained(folder, local_files_only=True).eval()


def _from_ultralytics(name: str) -> Any:
    try:
        from ultralytics import YOLO
    except ImportError as error:
        raise ImportError(
            f"{name!r} is opened with ultralytics, which does not import: {error}. Weights alone go to --weights, with MODEL one "
            f"of: {FORMS}."
        ) from error
    try:
        return YOLO(name)
    except (TypeError, KeyError, AttributeError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{name!r} is no model of ultralytics ({type(error).__name__}: {error}). Weights alone go to --weights, with MODEL one "
            f"of: {FORMS}."
        ) from error


def _imported(path: str) -> Any:
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"MODEL is {FORMS}; not {path!r}.")
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
