"""What users of LibreYOLO, the YOLOv5 explainer, ultralytics and grad-cam are used to type, in this package's names.

=====================  ==================================  =====================================================
typed there            here                                where it comes from
=====================  ==================================  =====================================================
``source``             ``image``                           YOLOv5 explainer, ultralytics
``layer``              ``target_layer``                    YOLOv5 explainer
``backward_per_class`` ``per="class"``                     YOLOv5 explainer
``backprop_array``     ``items``, with ``x_c``, ``y_c``,   YOLOv5 explainer; its ``h`` reads the column of the
                       ``h``, ``w`` for centre and size    width and its ``w`` that of the height, ours do not
``imgsz``              ``size``                            ultralytics
``conf``               ``confidence``                      ultralytics
``max_det``            ``max_detections``                  ultralytics
``agnostic_nms``       ``agnostic``                        ultralytics
``input_tensor``       ``image``                           grad-cam
``target_layers``      ``target_layer``                    grad-cam
``targets``            ``target``                          grad-cam: a list with one callable for the one image
``reshape_transform``  ``reshape``                         grad-cam, LibreYOLO
``cam_method``         ``method``                          LibreYOLO's wrapper: :class:`cam_engine.AutoSave`
``cam_layer``          ``layer``                           LibreYOLO's wrapper
``save_eigen_cam``     ``enabled``                         LibreYOLO's wrapper
``save_feature_maps``  ``feature_maps``                    LibreYOLO's wrapper
=====================  ==================================  =====================================================

Methods are known by their own names, ``gradcam++``, and by those of classes: ``GradCAMPlusPlus``, ``GradCAM Element wise``,
``FullGradCAM``, ``Eigen-CAM``. ``class_names=`` and ``k=`` are arguments of :func:`cam_engine.explain` itself.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from cam_engine.basecam import BaseCAM, as_method
from cam_engine.errors import nearest
from cam_engine.methods.registry import Method, get_method

Function = TypeVar("Function", bound=Callable[..., Any])
MethodName = str | Method | type[BaseCAM]

_ITEMS = {"x_c": "x_center", "y_c": "y_center", "w": "width", "h": "height"}


def _per(each: Any) -> str:
    return "class" if each else "all"


def _items(array: str | Sequence[str]) -> list[str]:
    return [_ITEMS.get(item, item) for item in ([array] if isinstance(array, str) else array)]


def _target(targets: Any) -> Any:
    """grad-cam's list of targets, one for each image of a batch, for the one image there is."""
    if not isinstance(targets, (list, tuple)):
        return targets
    if len(targets) != 1:
        raise ValueError(f"targets= holds {len(targets)} targets for one image; pass one.")
    (only,) = targets
    return (lambda outputs: only(outputs[0]).reshape(1)) if callable(only) else only


def _as_given(value: Any) -> Any:
    return value


IN_EXPLAIN: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "source": ("image", _as_given),
    "layer": ("target_layer", _as_given),
    "backward_per_class": ("per", _per),
    "backprop_array": ("items", _items),
    "imgsz": ("size", _as_given),
    "conf": ("confidence", _as_given),
    "max_det": ("max_detections", _as_given),
    "agnostic_nms": ("agnostic", _as_given),
    "input_tensor": ("image", _as_given),
    "target_layers": ("target_layer", _as_given),
    "targets": ("target", _target),
    "reshape_transform": ("reshape", _as_given),
}
IN_AUTOSAVE: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "cam_method": ("method", _as_given),
    "cam_layer": ("layer", _as_given),
    "save_eigen_cam": ("enabled", bool),
    "save_feature_maps": ("feature_maps", _as_given),
    **{name: IN_EXPLAIN[name] for name in ("backward_per_class", "backprop_array", "conf", "max_det", "agnostic_nms")},
}


def understands(spellings: Mapping[str, tuple[str, Callable[[Any], Any]]]) -> Callable[[Function], Function]:
    """Let a function be called with others' names for its arguments; a decorator.

    The function raises TypeError where an argument is given under two names, or is known under none.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())

        @functools.wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            ours = {name: value for name, value in given.items() if name in signature.parameters}
            positional = list(signature.parameters)[: len(args)]
            for name, value in given.items():
                if name in ours:
                    continue
                if name not in spellings:
                    if takes_any:
                        ours[name] = value
                        continue
                    known = nearest(name, [*signature.parameters, *spellings])
                    raise TypeError(f"{function.__qualname__}() knows no argument {name}=; nearest: {known}.")
                own, translate = spellings[name]
                if own in ours or own in positional:
                    raise TypeError(f"{name}= is another name of {own}=; pass one of them.")
                ours[own] = translate(value)
            return function(*args, **ours)

        return cast(Function, called)

    return decorate


def methods_of(given: MethodName | Sequence[MethodName]) -> tuple[Method, ...]:
    """The methods that are meant, each once: names in any spelling, :class:`cam_engine.methods.Method`, classes.

    Raises:
        ValueError: No method.
        UnknownNameError: (a KeyError) no such method.
        TypeError: Neither a name, a method nor a class derived from :class:`cam_engine.BaseCAM`.
    """
    each = [given] if isinstance(given, (str, Method, type)) else list(given)
    if not each:
        raise ValueError('method= is empty; pass at least one name, such as "gradcam".')
    return tuple({method.name: method for method in map(_method, each)}.values())


def _method(given: MethodName) -> Method:
    if isinstance(given, Method):
        return given
    return as_method(given) if isinstance(given, type) else get_method(given)
