"""The work that is measured: ours, what any user would have to write, and the peers' calls."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from cam_engine import CAM

SEVEN = ("eigencam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigengradcam")


def network(name: str = "resnet50", device: str = "cpu") -> nn.Module:
    """A torchvision model without weights, in eval mode."""
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None).eval().to(device)


def pictures(batch: int, device: str = "cpu") -> Tensor:
    """Random images at 224×224."""
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(device)


def classes(batch: int) -> list[int]:
    """A class for each image, so that no side spends time on finding the predicted one."""
    return [37 * i % 1000 for i in range(batch)]


def explain(cam: CAM, images: Tensor, targets: Any = None) -> list[Tensor]:
    """All of a call's heatmaps, at the images' size."""
    result = cam(images, targets)
    return [result[method] for method in result.methods]


def bare_pair(model: nn.Module, layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The least that every gradient method needs, as a user writes it: one forward, and one gradient call to a layer."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        logits = model(images)
    finally:
        handle.remove()
    score = logits.gather(1, torch.tensor(classes(len(images)), device=images.device)[:, None]).sum()
    return kept[0], torch.autograd.grad(score, kept[0])[0]


def lean_pair(model: nn.Module, layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The same with nothing recorded before the layer: the floor."""
    kept: list[Tensor] = []

    def begin(module: nn.Module, inputs: Any, output: Tensor) -> None:
        kept.append(output.requires_grad_())
        torch.set_grad_enabled(True)

    handle = layer.register_forward_hook(begin)
    try:
        with torch.no_grad():
            logits = model(images)
            score = logits.gather(1, torch.tensor(classes(len(images)), device=images.device)[:, None]).sum()
    finally:
        handle.remove()
    return kept[0], torch.autograd.grad(score, kept[0])[0]


def forward(model: nn.Module, images: Tensor) -> Tensor:
    """A whole forward that records nothing."""
    with torch.no_grad():
        return model(images)


def until(model: nn.Module, images: Tensor, layer: str) -> Tensor:
    """The forward of a ResNet up to and with one of its children: what a gradient-free method cannot do without."""
    with torch.no_grad():
        for name, child in model.named_children():
            images = child(images)
            if name == layer:
                break
    return images


def forwards_needed(model: nn.Module, images: Tensor, layer: str, *, whole: bool, at_once: int = 16) -> None:
    """The least that a method needs which asks a ResNet about every channel of a layer: one forward of the images, and one for each
    channel, ``whole`` or from the layer on; many images at once, channels last."""
    behind = list(dict(model.named_children()))
    behind = behind[behind.index(layer) + 1 :]
    with torch.no_grad():
        activations = until(model, images, layer)
        channels = activations.shape[1]
        forward(model, images)
        one = images if whole else activations
        given = one.repeat(-(-at_once // len(one)), 1, 1, 1)[:at_once].contiguous(memory_format=torch.channels_last)
        for start in range(0, channels * len(images), at_once):
            x = given[: channels * len(images) - start]
            if whole:
                model(x)
                continue
            for name in behind:
                x = getattr(model, name)(x.flatten(1) if name == "fc" else x)


def grad_cam(
    model: nn.Module, layer: nn.Module, images: Tensor, methods: tuple[str, ...], *, aug_smooth: bool = False
) -> list[Any]:
    """The grad-cam package's own calls, one for each method."""
    import pytorch_grad_cam as peer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    names = {
        "eigencam": "EigenCAM",
        "gradcam": "GradCAM",
        "gradcam++": "GradCAMPlusPlus",
        "xgradcam": "XGradCAM",
        "hirescam": "HiResCAM",
        "layercam": "LayerCAM",
        "eigengradcam": "EigenGradCAM",
        "scorecam": "ScoreCAM",
        "ablationcam": "AblationCAM",
    }
    targets = [ClassifierOutputTarget(index) for index in classes(len(images))]
    maps = []
    for method in methods:
        with quiet(), getattr(peer, names[method])(model, [layer]) as cam:
            maps.append(cam(input_tensor=images, targets=targets, aug_smooth=aug_smooth))
    return maps


def torchcam(model: nn.Module, layer: str, images: Tensor, method: str) -> Tensor:
    """One call of torchcam, upsampled."""
    from torchcam import methods as peer

    with getattr(peer, method)(model, target_layer=layer) as extractor:
        maps = extractor(classes(len(images)), model(images))[0]
    return F.interpolate(maps[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False)


def captum(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """One call of captum's LayerGradCam, upsampled."""
    from captum.attr import LayerAttribution, LayerGradCam

    maps = LayerGradCam(model, layer).attribute(images, target=classes(len(images)), relu_attributions=True)
    return LayerAttribution.interpolate(maps, tuple(images.shape[-2:]), "bilinear")


@contextmanager
def quiet() -> Iterator[None]:
    """Without a peer's progress bars."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
