"""Write tests/data/gradcam_reference.npz: what the grad-cam package computes on a small network, for tests in .venv.

    .venv-peers/bin/python tests/peers/make_reference.py

The file holds the network's weights, the images and the classes too, so that nothing depends on how an environment seeds
or initialises. The logits are large (× 1e3): grad-cam's GradCAM++ and XGradCAM add an eps that would otherwise be larger than
what it guards (1e-6 against a median of 2g²), and its result would depend on the logits' unit.
"""

import contextlib
import copy
import io
import itertools
from pathlib import Path

import numpy as np
import torch
from torch import nn

PATH = Path(__file__).parents[1] / "data" / "gradcam_reference.npz"
METHODS = {
    "eigencam": "EigenCAM",
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigengradcam": "EigenGradCAM",
    "gradcam_elementwise": "GradCAMElementWise",
    "fullgrad": "FullGrad",
    "scorecam": "ScoreCAM",
    "ablationcam": "AblationCAM",
    "kpcacam": "KPCA_CAM",
    "fem": "FEM",
    "shapleycam": "ShapleyCAM",
    "finercam": "FinerCAM",
    "segeigencam": "SegEigenCAM",
    "gradcam aug_smooth": "GradCAM",
    "fem aug_smooth": "FEM",
    "gradcam eigen_smooth": "GradCAM",
    "layercam eigen_smooth": "LayerCAM",
}
PREDICTED = (
    "ablationcam",
    "finercam",
)  # theirs explains no other class, or divides by a score that must not be negative
# A softmax of large logits is 0 and 1; FullGrad's eps counts channel by channel.
FACTORS = {"scorecam": 1e-3, "finercam": 3e-2, "fullgrad": 1e2}
EXACT = ("kpcacam",)  # theirs runs in float64: in float32 it rounds tanh(x + 1), which ours does not
LAYERS = {"late": ["late"], "early+late": ["early", "late"]}
LOGIT_SCALE = 1e3


class Network(nn.Module):
    """Images (B, 3, H, W) → (B, 4); nothing in place, because grad-cam would pair wrong activations and gradients."""

    def __init__(self):
        super().__init__()
        self.early = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(12, 16, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(16 * 4, 4)

    def forward(self, x):
        x = self.late(self.middle(self.early(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def network(state=None):
    """The network with these weights (name → array), in eval mode."""
    net = Network()
    if state is not None:
        net.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    return net.eval()


def prepared(net, classes, method):
    """(network, targets) that this method is compared on."""
    if method in FACTORS:
        net = copy.deepcopy(net)
        with torch.no_grad():
            getattr(net, "head" if hasattr(net, "head") else "fc").weight.mul_(FACTORS[method])
    return net, None if method in PREDICTED else classes


def peer_maps(net, images, classes, method, layers):
    """(B, H, W) by the grad-cam package, on a copy: it leaves hooks behind and never undoes eval()."""
    import pytorch_grad_cam
    from pytorch_grad_cam import seg_eigen_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, classes = prepared(net, classes, method)
    net, images = copy.deepcopy(net), images.clone()
    if method in EXACT:
        net, images = net.double(), images.double()
    module = pytorch_grad_cam if hasattr(pytorch_grad_cam, METHODS[method]) else seg_eigen_cam
    quiet = io.StringIO()  # for their progress bars, and a warning of FullGrad's
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        cam = getattr(module, METHODS[method])(net, [net.get_submodule(layer) for layer in layers])
        targets = None if classes is None else [ClassifierOutputTarget(int(c)) for c in classes]
        option = method.partition(" ")[2]
        return cam(images, targets, **({option: True} if option else {}))


def our_maps(net, images, classes, method, layers):
    """(B, H, W) by cam_engine, asked as the peer is."""
    from cam_engine import CAM

    net, targets = prepared(net, classes, method)
    name, _, option = method.partition(" ")
    return CAM(net, name, layers, **({option: True} if option else {}))(images, targets)[name].numpy()


# What theirs leaves to the decomposition's chance, as signed maps from activations and gradients.
SIGNED = {
    "eigencam": lambda methods, A, g: methods.eigencam(A),
    "eigengradcam": lambda methods, A, g: methods.eigengradcam(A, g),
    "segeigencam": lambda methods, A, g: methods.segeigencam(A, g),
    "kpcacam": lambda methods, A, g: methods.kpcacam(A),
    "gradcam eigen_smooth": lambda methods, A, g: methods.collapse(methods.gradcam(A, g), A, eigen_smooth=True),
    "layercam eigen_smooth": lambda methods, A, g: methods.collapse(methods.layercam(A, g), A, eigen_smooth=True),
}


def both_signs(net, images, classes, method, layers):
    """Our heatmaps (B, H, W) for every choice of signs of the layers, our own first."""
    from cam_engine import CAMResult, methods
    from cam_engine.capture import Tap, capture, gradients

    targets = [Tap(name, net.get_submodule(name), lambda _: ()) for name in layers]
    captured = capture(net, images, targets, record="from_layer")
    with torch.enable_grad():
        grads = gradients(captured.outputs.gather(1, classes[:, None]).squeeze(1), captured.activations)
    signed = {n: SIGNED[method](methods, captured.activations[n].detach(), grads[n]) for n in layers}
    candidates = []
    for signs in itertools.product((1, -1), repeat=len(layers)):
        raw = {("fem", n): (sign * signed[n]).relu() for n, sign in zip(layers, signs, strict=True)}
        candidates.append(CAMResult(raw, None, None, images.shape[-2:])["fem"].numpy())
    return candidates


def seeded_network():
    torch.manual_seed(7)
    net = network()
    with torch.no_grad():
        net.early[1].running_mean.normal_(0, 0.2)
        net.early[1].running_var.uniform_(0.5, 1.5)
        net.head.weight.mul_(LOGIT_SCALE)
    return net


def real_images():
    """Four 40×56 crops of scikit-learn's photographs, scaled to about zero mean and unit deviation."""
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    crops = [
        china[100:180:2, 200:312:2],
        china[260:340:2, 60:172:2],
        flower[120:200:2, 250:362:2],
        flower[10:90:2, 400:512:2],
    ]
    return torch.from_numpy(np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) / 60 - 2)


def main():
    import pytorch_grad_cam  # noqa: F401  (fails here, before anything is computed, in an environment without it)

    net, images, classes = seeded_network(), real_images(), torch.tensor([0, 3, 2, 1])
    arrays = {f"weight/{name}": value.numpy() for name, value in net.state_dict().items()}
    arrays |= {"images": images.numpy(), "classes": classes.numpy()}
    for method in METHODS:
        for key, layers in LAYERS.items():
            arrays[f"{method}/{key}"] = peer_maps(net, images, classes, method, layers).astype(np.float32)
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, **arrays)
    print(f"{PATH.name}: {PATH.stat().st_size / 1e3:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main()
