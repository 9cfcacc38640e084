"""A CAM method written as a class, as in LibreYOLO and grad-cam: called by itself, and registered as a method by name.

python examples/gradcampp_class.py --folder runs/gradcampp_class
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import nn

from cam_engine import BaseCAM, compare_methods, methods_as_classes, register_class


class GradCAMPlusPlus(BaseCAM):
    """Chattopadhyay et al. 2018: w = Σ α·relu(g), α = g² / (2g² + ΣA·g³)."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform, uses_gradients=True)

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        sums = np.sum(activations * grads**3, axis=(2, 3), keepdims=True)
        alpha = np.divide(grads**2, 2 * grads**2 + sums, out=np.zeros_like(grads), where=grads != 0)
        return np.sum(alpha * np.maximum(grads, 0), axis=(2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/gradcampp_class"))
    args = parser.parse_args()
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 7, 4, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
    )  # fmt: skip
    photographs = load_sample_images().images
    images = torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 255 for p in photographs])

    with GradCAMPlusPlus(net, [net[3], net[5]]) as cam:  # two layers: their maps are averaged
        print("heatmaps", cam(images, targets=[0, 1]).shape)
    ready = methods_as_classes.GradCAMPlusPlus(net, [net[3], net[5]])
    print("heatmaps of the ready class", ready(images, targets=[0, 1]).shape)

    register_class("my gradcam++", GradCAMPlusPlus)
    compared = compare_methods(net, photographs[0], ["my gradcam++", "gradcam++", "gradcam"], target_layer="5", save=True,
                               output_path=args.folder / "compared")  # fmt: skip
    mine, ours = (compared["methods"][name]["heatmap"] for name in ("my gradcam++", "gradcam++"))
    print(f"largest difference from gradcam++: {np.abs(mine - ours).max():.4f}; sheet in {compared['saved_path']}")


if __name__ == "__main__":
    main()
