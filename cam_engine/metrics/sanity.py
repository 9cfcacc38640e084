"""Does a map depend on what the model has learned? Cascading randomisation (Adebayo et al. 2018, arXiv:1810.03292)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cam_engine.metrics.aggregates import mean
from cam_engine.metrics.drift import jensen_shannon

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cam_engine.layers import LayerSpec

STAGES = 8


@dataclass(frozen=True)
class Stage:
    """``layer``: the last one made random, all behind it being random too. ``drift[method]``: mean JSD (0–1) from the maps
    of the trained model; NaN where no map is valid."""

    layer: str
    drift: dict[str, float]


def cascading_randomisation(
    model: nn.Module,
    images: Tensor,
    targets: int | Sequence[int] | None = None,
    methods: str | Sequence[str] = ("eigencam", "gradcam"),
    layers: LayerSpec = "auto",
    stages: int = STAGES,
    seed: int = 0,
) -> list[Stage]:
    """Make the model's layers random from the output backwards, and measure how far the maps drift at each stage.

    Drift must rise: a map that stays while the weights are lost shows the image's edges, and not what the model learned. A
    method without gradients, such as EigenCAM, drifts only once the cascade reaches the explained layer.

    Args:
        model: Left exactly as it was.
        images: (B, C, H, W), normalised.
        targets: The explained classes, the same at every stage; None: those that the trained model predicts.
        methods, layers: As for :class:`cam_engine.CAM`; drift is the mean over layers.
        stages: How many times to measure, evenly over the layers.
        seed: Of the random weights.
    """
    import torch

    from cam_engine.cam import CAM
    from cam_engine.guard import weights_kept

    cam = CAM(model, methods, layers, progress=False)
    before = cam(images, targets, outputs=True)
    if targets is None:
        targets = cam.scores_of(before.outputs).argmax(1).tolist()
    order = [(name, module) for name, module in model.named_modules() if list(module.parameters(recurse=False))][::-1]
    measured = {round(stop) for stop in np.linspace(0, len(order) - 1, min(stages, len(order)))}
    measured_stages = []
    with weights_kept(model):
        torch.manual_seed(seed)
        for index, (name, module) in enumerate(order):
            _randomise(module)
            if index in measured:
                after = cam(images, targets)
                drift = {
                    method: mean(
                        np.concatenate(
                            [jensen_shannon(after.raw[key], m) for key, m in before.raw.items() if key[0] == method]
                        )
                    )
                    for method in before.methods
                }
                measured_stages.append(Stage(name, drift))
    return measured_stages


def _randomise(module: nn.Module) -> None:
    """As the module begins; one that cannot begin again gets normal weights of the same spread."""
    import torch

    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            spread = float(parameter.std()) if parameter.numel() > 1 else 1.0
            parameter.normal_(0.0, spread or 1.0)
