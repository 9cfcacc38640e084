"""One ready class for each method, called as in grad-cam, and by the names that it and LibreYOLO have for them.

    from cam_engine.methods_as_classes import GradCAMPlusPlus

    with GradCAMPlusPlus(model=model, target_layers=[model.layer4]) as cam:
        heatmaps = cam(input_tensor=images, targets=[281, 282])

The heatmaps are those of :class:`cam_engine.CAM`. A class derived from one of these may bring its own ``get_cam_weights``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cam_engine.basecam import BaseCAM
from cam_engine.methods.registry import Method, get_method


class NamedCAM(BaseCAM):
    """What the classes here have in common: ``name``, the method's as in :func:`cam_engine.available_methods`."""

    name: ClassVar[str]

    def __init_subclass__(cls, name: str | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        if name is not None:
            cls.name = name

    def as_method(self, targets: Any = None) -> Method:
        """The registered method; a derived class's own ``get_cam_weights``, if it has one."""
        own = type(self).get_cam_weights is not NamedCAM.get_cam_weights
        return super().as_method(targets) if own else get_method(self.name)

    def get_cam_weights(
        self,
        input_tensor: Tensor,
        target_layer: nn.Module,
        targets: Any,
        activations: NDArray[np.floating],
        grads: NDArray[np.floating] | None,
    ) -> NDArray[np.floating]:
        """The weights (B, C) that the method gives to the channels, for activations and gradients (B, C, h, w).

        Raises:
            TypeError: The method has none: it needs more than gradients, or weighs cell by cell; call the object instead.
        """
        method = get_method(self.name)
        given = {"activations": torch.from_numpy(np.asarray(activations, np.float32))}
        if "gradients" in method.needs and grads is not None:
            given["gradients"] = torch.from_numpy(np.asarray(grads, np.float32))
        weights = None if method.needs - given.keys() or method.options else method.function(**given)
        if weights is None or weights.ndim != 2:
            raise TypeError(f"{self.name} has no channel weights to give; call the object with images.")
        return np.asarray(weights.numpy())


class GradCAM(NamedCAM, name="gradcam"):
    """Selvaraju et al. 2017."""


class GradCAMPlusPlus(NamedCAM, name="gradcam++"):
    """Chattopadhyay et al. 2018."""


class XGradCAM(NamedCAM, name="xgradcam"):
    """Fu et al. 2020."""


class HiResCAM(NamedCAM, name="hirescam"):
    """Draelos & Carin 2020."""


class LayerCAM(NamedCAM, name="layercam"):
    """Jiang et al. 2021."""


class EigenCAM(NamedCAM, name="eigencam"):
    """Muhammad & Yeasin 2020."""


class EigenGradCAM(NamedCAM, name="eigengradcam"):
    """The first principal component of activations times gradients."""


class GradCAMElementWise(NamedCAM, name="gradcam_elementwise"):
    """Activations times gradients, ReLU, summed over channels."""


class FullGrad(NamedCAM, name="fullgrad"):
    """Srinivas & Fleuret 2019."""


class ScoreCAM(NamedCAM, name="scorecam"):
    """Wang et al. 2020."""


class AblationCAM(NamedCAM, name="ablationcam"):
    """Desai & Ramaswamy 2020."""


class KPCA_CAM(NamedCAM, name="kpcacam"):
    """Karmani et al. 2024."""


class FEM(NamedCAM, name="fem"):
    """Fuad et al. 2020."""


class ShapleyCAM(NamedCAM, name="shapleycam"):
    """Cai 2025."""


class FinerCAM(NamedCAM, name="finercam"):
    """Zhang et al. 2025."""


class SegEigenCAM(NamedCAM, name="segeigencam"):
    """Chung & Ying 2025."""


class ClassicCAM(NamedCAM, name="cam"):
    """Zhou et al. 2016."""


class SmoothGradCAMPlusPlus(NamedCAM, name="smoothgradcam++"):
    """Omeiza et al. 2019."""


class ExchangeCAM(NamedCAM, name="exchangecam"):
    """The fall of the class where a window of another image is laid over this one."""


class RandomCAM(NamedCAM, name="randomcam"):
    """Random channel weights: the floor."""


FullGradCAM = FullGrad
GradCAMElementwise = GradCAMElementWise
