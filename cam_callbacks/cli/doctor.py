"""``cam-callbacks doctor``: what is installed, whether it works, and what this does with a given model."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cam_callbacks.cli.arguments import CommandError, add_model, model_of
from cam_callbacks.text_table import table

if TYPE_CHECKING:
    from torch import Tensor

    from cam_callbacks import Record

NEEDED = (
    "torch", "pytorch-lightning", "lightning", "numpy", "scipy", "Pillow", "tensorboard", "mlflow", "pandas", "filelock",
)  # fmt: skip
OPTIONAL = ("wandb", "timm", "torchvision", "transformers", "ultralytics", "scikit-learn", "jsonargparse")
OPENCVS = (
    "opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless",
)  # fmt: skip
IMAGES, SIDE = 16, 32  # of the self test; without --images also of a model that says no size


def add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its arguments."""
    doctor = commands.add_parser(
        "doctor",
        help="what is installed, whether it works, and what it does with a model",
        description="Print versions, run a self test of a few seconds, and, of a MODEL, its layers, which of them are taken, "
        "whether it has maps and whether these show what decides. Paste it all into an issue.",
    )
    add_model(doctor, optional=True)
    doctor.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="pictures, a folder or a quoted glob for MODEL (default: coloured noise)",
    )
    doctor.set_defaults(command=run_doctor)


def run_doctor(args: argparse.Namespace) -> int:
    """``cam-callbacks doctor``: 0, or 1 where a check failed."""
    if args.images and args.model is None:
        raise CommandError("--images are for a MODEL: cam-callbacks doctor package.module:name --images FOLDER")
    print("\n".join(line.rstrip() for line in table(list(versions()))))
    well = _checked("self test", self_test)
    if args.model is not None:
        print()
        well = _checked(args.model, lambda: examine(args)) and well
    return 0 if well else 1


def versions() -> Iterator[tuple[str, str]]:
    """(what, which) is installed here."""
    from cam_callbacks import __version__

    yield "cam-callbacks", __version__
    yield "Python", f"{platform.python_version()} ({platform.platform()}, {os.cpu_count()} cores)"
    yield from ((name, _version(name) or "MISSING") for name in NEEDED)
    yield "cv2", _opencv()
    yield "CUDA", _cuda()
    yield "also here", ", ".join(f"{name} {found}" for name in OPTIONAL if (found := _version(name))) or "none"


def self_test() -> str:
    """A look at a small network through everything that a look needs: maps, numbers, record on disk, picture, page."""
    import tempfile

    import torch
    from torch import nn

    from cam_callbacks import CAMMonitor, ProbeSet, RecordStore
    from cam_callbacks.compare import load_run, write_page
    from cam_engine.render import overlay

    images = noise(IMAGES, SIDE, 3)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 2)
    ).eval()
    before = [parameter.clone() for parameter in net.parameters()]
    with tempfile.TemporaryDirectory(prefix="cam-doctor-") as folder:
        probe = ProbeSet(images, torch.arange(IMAGES) % 2)
        monitor = CAMMonitor(probe, layers="0", folder=folder, exchange=[])
        record = monitor.look(net, epoch=0)
        again = RecordStore(folder)[-1]
        maps = record.maps["gradcam", "0"]
        same = maps.shape == again.maps["gradcam", "0"].shape
        picture = overlay((images[0].permute(1, 2, 0).numpy() * 255).astype("uint8"), maps[0])
        page = write_page([load_run(folder)], Path(folder) / "page.html").stat().st_size
    if not same or picture.shape != (SIDE, SIDE, 3) or page < 1000:
        raise RuntimeError("the record, the picture or the page of a look is not what it should be")
    if not all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)):
        raise RuntimeError("a look changed the network's weights")
    return "a look, its record, a picture and the page"


def examine(args: argparse.Namespace) -> str:
    """What a look does with the model that is named."""
    from cam_callbacks import CAMMonitor, ProbeSet
    from cam_callbacks.cli.layers import default_layers
    from cam_engine import available_layers
    from cam_engine.loading import example, load_model

    model, settings = model_of(args)
    loaded = load_model(model, **settings)
    shape = tuple(example(loaded).shape)
    images = pictures(args.images, loaded.prepare) if args.images else noise(IMAGES, max(shape[-2:]), shape[1])
    infos = available_layers(loaded.net, images[:1].to(args.device))
    default = default_layers(loaded, images[:1].to(args.device))
    grids = {info.name: f"{info.grid[0]}×{info.grid[1]}" for info in infos}
    print(f"{type(loaded.net).__name__}: {len(infos)} layers with a grid; input {tuple(images.shape)}, {loaded.input}")
    print("taken where none is named: " + ", ".join(f"{name} ({grids.get(name, '?')})" for name in default))
    monitor = CAMMonitor(ProbeSet(images), layers=default, output=loaded.output)
    record = monitor.look(loaded.net.to(args.device), epoch=0)
    rows = [
        (method, layer, _valid(record, method, layer), _trust(record, method, layer)) for method, layer in record.maps
    ]
    print("\n".join(line.rstrip() for line in table([("method", "layer", "valid maps", "show what decides"), *rows])))
    return f"{len(images)} images" + ("" if args.images else " of noise; --images FOLDER takes pictures")


def noise(n: int, side: int, channels: int) -> Tensor:
    """(n, channels, side, side) in [0, 1]: smooth and of other colours from image to image."""
    import torch
    from torch.nn import functional as F

    random = torch.Generator().manual_seed(0)
    coarse = F.interpolate(torch.rand(n, channels, 4, 4, generator=random), (side, side), mode="bicubic").clamp(0, 1)
    return 0.8 * coarse + 0.2 * torch.rand(n, channels, side, side, generator=random)


def pictures(names: list[str], prepare: Any) -> Tensor:
    """The inputs that a model makes of these files."""
    import torch
    from PIL import Image

    from cam_engine.explanation.reading import paths_of

    paths = [path for name in names for path in paths_of(name) or [Path(name)]]
    return torch.cat([prepare(Image.open(path).convert("RGB"))[0] for path in paths])


def _checked(name: str, check: Callable[[], str]) -> bool:
    """Run a check and say in one line how it went."""
    began = time.perf_counter()
    try:
        said = check()
    except CommandError:
        raise
    except Exception as error:  # whatever it is, it is what is looked for
        print(f"{name}: FAILED: {type(error).__name__}: {error}")
        return False
    print(f"{name}: ok in {time.perf_counter() - began:.1f} s: {said}")
    return True


def _valid(record: Record, method: str, layer: str) -> str:
    from cam_engine.metrics import valid

    return f"{valid(record.maps[method, layer]).mean():.0%}"


def _trust(record: Record, method: str, layer: str) -> str:
    """What the exchange test of the focus says of a map."""
    from cam_callbacks.look.judgement import FEWEST_IMAGES

    remark = [it.words for it in record.judged if it.state == "remark" and (it.method, it.layer) == (method, layer)]
    if remark:
        return f"no: {remark[0]}"
    tested = [
        of for key, of in record.aggregates.items() if key.startswith("follows_focus") and method in key.split("/")
    ]
    return (
        "yes" if any(of.get("n", 0) >= FEWEST_IMAGES for of in tested) else "not tested: hardly two predictions differ"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _opencv() -> str:
    """Which distribution brings ``cv2``, and whether it loads: opencv-python needs libGL."""
    found = ", ".join(f"{name} {version}" for name in OPENCVS if (version := _version(name))) or "MISSING"
    try:
        import cv2
    except ImportError as error:
        return f"{found}: DOES NOT LOAD ({error}); opencv-python-headless needs no libGL"
    return f"{found}: loads, {cv2.getNumThreads()} threads"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"none (torch built {'with ' + torch.version.cuda if torch.version.cuda else 'without it'})"
    return f"{torch.version.cuda}: " + ", ".join(
        torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
    )
