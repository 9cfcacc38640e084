"""The table's rows: each function measures one claim and yields a line, or several, for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import jobs
import numpy as np
import torch
from measure import Job, Pair, alternate, import_seconds, peak_of
from torch import Tensor, nn

from cam_callbacks import CAMMonitor, ProbeSet
from cam_engine import CAM
from cam_engine.methods.eigen import principal_map

LAST = "layer4"
GIB = 1024  # in MiB


@dataclass(frozen=True)
class Settings:
    """What the command line asks for."""

    quick: bool
    batch: int
    device: str
    threads: int
    clock: str

    def side_by_side(self, ours: Job, theirs: Job, rounds: int, *, warm: bool = True, calls: int = 1) -> Pair:
        return alternate(ours, theirs, rounds, warm=warm, calls=calls, device=self.device, clock=self.clock)

    def rounds(self, full: int, quick: int = 1) -> int:
        return quick if self.quick else full


@dataclass(frozen=True)
class Line:
    """A line of the table. ``passed`` is None where there is no bar."""

    what: str
    ours: str
    theirs: str
    result: str
    bar: str = ""
    passed: bool | None = None

    def cells(self) -> list[str]:
        verdict = {None: "", True: "PASS", False: "FAIL"}[self.passed]
        return [self.what, self.ours, self.theirs, self.result, self.bar, verdict]


Row = Callable[[Settings], Iterator[Line]]
ROWS: dict[str, Row] = {}


def row(name: str) -> Callable[[Row], Row]:
    def keep(function: Row) -> Row:
        ROWS[name] = function
        return function

    return keep


@row("bare")
def against_the_bare_pair(given: Settings) -> Iterator[Line]:
    model, images = jobs.network(), jobs.pictures(given.batch)
    cam, classes = CAM(model, jobs.SEVEN, LAST), jobs.classes(given.batch)
    for name, pair, bar in (
        ("as users write it", jobs.bare_pair, 1.15),
        ("nothing recorded before the layer", jobs.lean_pair, None),
    ):
        times = given.side_by_side(
            lambda: jobs.explain(cam, images, classes),
            lambda pair=pair: pair(model, model.layer4, images),
            given.rounds(11, 3),
        )
        yield slower(f"seven methods / forward + gradient, {name}", times, bar)


@row("grad-cam")
def against_grad_cam(given: Settings) -> Iterator[Line]:
    model, images = jobs.network(), jobs.pictures(given.batch)
    cam, classes = CAM(model, jobs.SEVEN, LAST), jobs.classes(given.batch)
    jobs.explain(cam, images, classes)
    times = given.side_by_side(
        lambda: jobs.explain(cam, images, classes),
        lambda: jobs.grad_cam(model, model.layer4, images, jobs.SEVEN),
        given.rounds(3),
        warm=False,
    )
    yield faster("grad-cam's seven calls / seven methods", times, 25)


@row("memory")
def peak_memory(given: Settings) -> Iterator[Line]:
    for batch in (4, 16) if given.quick else (4, 16, 32):
        growth = {case: peak_of(case, batch=batch, threads=given.threads)[0] for case in ("seven", "bare", "lean")}
        for case, name in (("bare", "as users write it"), ("lean", "nothing recorded before the layer")):
            ratio = growth["seven"] / growth[case]
            what = f"peak memory, batch {batch}: seven methods / forward + gradient, {name}"
            ours, theirs = f"{growth['seven']:.0f} MiB", f"{growth[case]:.0f} MiB"
            bar, passed = ("≤ 1.10×", ratio <= 1.10) if case == "bare" else ("", None)
            yield Line(what, ours, theirs, f"{ratio:.2f}×", bar, passed)


@row("eigen-speed")
def eigen_against_a_full_svd(given: Settings) -> Iterator[Line]:
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    activations = torch.randn(4, 64, 80, 80, generator=torch.Generator().manual_seed(0)).relu()
    array = activations.numpy()
    with torch.no_grad():
        principal_map(activations)
        times = given.side_by_side(
            lambda: principal_map(activations),
            lambda: get_2d_projection(array),
            given.rounds(3),
            warm=False,
            calls=50,
        )
    yield faster("grad-cam's SVD / EigenCAM on 64×80×80, batch 4", times, 1000)


@row("eigen-exact")
def eigen_against_float64(given: Settings) -> Iterator[Line]:
    generator = torch.Generator().manual_seed(0)
    for channels, side in ((64, 80), (512, 28), (2048, 7)):
        worst = {}
        for ratio in (0.5, 0.99, 0.995):
            matrix = planted(2, channels, side * side, ratio, generator)
            left, values, _ = torch.linalg.svd(matrix.transpose(1, 2), full_matrices=False)
            exact = values[:, :1] * left[:, :, 0]
            found = principal_map(matrix.unflatten(2, (side, side)).float()).flatten(1).double()
            sign = (found * exact).sum(1, keepdim=True).sign()
            worst[ratio] = float(((found * sign - exact).abs().amax(1) / exact.abs().amax(1)).max())
        within = max(worst.values())
        apart = ", ".join(f"{ratio:g}: {error:.0e}" for ratio, error in worst.items())
        what = f"EigenCAM on {channels}×{side}×{side} against a float64 SVD (by σ2/σ1)"
        yield Line(what, "", "", apart, "≤ 1e-4", within <= 1e-4)


def planted(batch: int, channels: int, cells: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Centred float64 matrices (B, C, n) whose second singular value is ``ratio`` of the first; the others fall slowly."""
    rank = min(channels, cells - 1)
    left = torch.randn(batch, cells, rank, generator=generator, dtype=torch.float64)
    left = torch.linalg.qr(left - left.mean(1, keepdim=True))[0]
    right = torch.linalg.qr(torch.randn(batch, channels, rank, generator=generator, dtype=torch.float64))[0]
    values = ratio * 0.98 ** torch.arange(-1, rank - 1, dtype=torch.float64)
    values[0] = 1
    return (right * values) @ left.transpose(1, 2)


@row("stop")
def gradient_free(given: Settings) -> Iterator[Line]:
    model = jobs.network()
    for batch in sorted({4, given.batch}):
        yield from stopped(model, batch, given)


def stopped(model: nn.Module, batch: int, given: Settings) -> Iterator[Line]:
    images = jobs.pictures(batch)
    cam = CAM(model, "eigencam", "layer2")
    cam(images)  # the first call finds out whether the layer runs again later
    times = given.side_by_side(
        lambda: jobs.explain(cam, images), lambda: jobs.forward(model, images), given.rounds(11, 3)
    )
    yield slower(f"EigenCAM at layer2 (512×28×28) / a full forward, batch {batch}", times, 0.6)
    times = given.side_by_side(
        lambda: jobs.until(model, images, "layer2"), lambda: jobs.forward(model, images), given.rounds(11, 3)
    )
    yield slower(f"the forward until layer2 alone / a full forward, batch {batch}", times)
    ran: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, module in model.named_children()
    ]
    cam(images)
    for handle in handles:
        handle.remove()
    later = [name for name in ran if name in ("layer3", "layer4", "avgpool", "fc")]
    yield Line(f"stages after layer2 that ran, batch {batch}", str(len(later)), "4", "", "0", not later)


@row("score")
def rescoring(given: Settings) -> Iterator[Line]:
    model = jobs.network("resnet18")
    for method, name, layer, count in (
        ("ablationcam", "Ablation-CAM", "layer4", 1),
        ("ablationcam", "Ablation-CAM", "layer1", 2),
        ("scorecam", "Score-CAM", "layer1", 2),
    ):
        images, cam = jobs.pictures(count), CAM(model, method, layer, progress=False)
        times = given.side_by_side(
            lambda cam=cam, images=images: jobs.explain(cam, images, jobs.classes(len(images))),
            lambda method=method, layer=layer, images=images: jobs.grad_cam(
                model, model.get_submodule(layer), images, (method,)
            ),
            given.rounds(5),
            warm=False,
        )
        yield faster(f"grad-cam's {name} / ours, ResNet-18, {layer}, batch {count}", times, 2)


@row("limit")
def against_the_forwards_needed(given: Settings) -> Iterator[Line]:
    """A method that asks about every channel cannot be faster than the forwards that it needs."""
    model, images = jobs.network("resnet18"), jobs.pictures(2)
    for method, name, whole in (("scorecam", "Score-CAM", True), ("ablationcam", "Ablation-CAM", False)):
        cam = CAM(model, method, "layer1", progress=False)
        times = given.side_by_side(
            lambda cam=cam: jobs.explain(cam, images, jobs.classes(2)),
            lambda whole=whole: jobs.forwards_needed(model, images, "layer1", whole=whole),
            given.rounds(7, 3),
        )
        yield slower(f"{name} / the forwards that it needs, ResNet-18, layer1, batch 2", times, 1.1)


@row("smooth")
def sampling(given: Settings) -> Iterator[Line]:
    model, images = jobs.network(), jobs.pictures(4)
    smooth = CAM(model, "gradcam", LAST, aug_smooth=True)
    times = given.side_by_side(
        lambda: jobs.explain(smooth, images, jobs.classes(4)),
        lambda: jobs.grad_cam(model, model.layer4, images, ("gradcam",), aug_smooth=True),
        given.rounds(5),
        warm=False,
    )
    yield faster("grad-cam's GradCAM with aug_smooth / ours, ResNet-50, layer4, batch 4", times, 2)
    cam = CAM(model, "smoothgradcam++", LAST)
    times = given.side_by_side(
        lambda: jobs.explain(cam, images, jobs.classes(4)),
        lambda: jobs.torchcam(model, LAST, images, "SmoothGradCAMpp"),
        given.rounds(7, 2),
    )
    yield faster("torchcam's Smooth Grad-CAM++ / ours, ResNet-50, layer4, batch 4", times)


@row("score-memory")
def rescoring_memory(given: Settings) -> Iterator[Line]:
    for method, layer in (("scorecam", "layer1"), ("ablationcam", "layer1")):
        growth, highest = peak_of(method, batch=1, layer=layer, threads=given.threads)
        what = f"peak memory of {method}, ResNet-50, {layer}, one image: whole process"
        yield Line(what, f"{highest:.0f} MiB", "", f"{growth:.0f} MiB grown", "< 2048 MiB", highest < 2 * GIB)


@row("single")
def single_calls(given: Settings) -> Iterator[Line]:
    model, images = jobs.network(), jobs.pictures(given.batch)
    cam, classes = CAM(model, "gradcam", LAST), jobs.classes(given.batch)
    peers = {
        "torchcam": lambda: jobs.torchcam(model, LAST, images, "GradCAM"),
        "captum": lambda: jobs.captum(model, model.layer4, images),
        "grad-cam": lambda: jobs.grad_cam(model, model.layer4, images, ("gradcam",)),
    }
    for name, peer in peers.items():
        times = given.side_by_side(lambda: jobs.explain(cam, images, classes), peer, given.rounds(5, 2))
        yield faster(f"{name}'s GradCAM / ours", times)


@row("metrics")
def default_metrics(given: Settings) -> Iterator[Line]:
    """What a look's numbers cost, as the callback measures and aggregates them: default metrics, masks and a suspected region."""
    count = 8 if given.quick else 64
    images = jobs.pictures(count)
    masks = torch.zeros(count, 224, 224, dtype=torch.bool)
    masks[:, 56:168, 56:168] = True
    probe = ProbeSet(images, jobs.classes(count), masks=masks, nuisance=masks.roll(90, 2))
    model = jobs.network("resnet18")
    monitor = CAMMonitor(probe, ("eigencam", "gradcam"), LAST, reference="first", alerts=[])
    monitor.look(model)
    measure = monitor._measurer.measure
    with mock.patch.object(monitor._measurer, "measure", wraps=measure) as called:
        monitor.look(model)
    times = given.side_by_side(
        lambda: measure(*called.call_args.args, **called.call_args.kwargs),
        lambda: monitor.look(model),
        given.rounds(5, 2),
        calls=given.rounds(5, 1),
    )
    share, low, high = (100 * ratio for ratio in times.ratio())
    what = f"default metrics / the look that they describe, ResNet-18, {count} images, 2 methods"
    yield Line(
        what, _time(times.ours), _time(times.theirs), f"{share:.2f} % ({low:.2f}–{high:.2f})", "≤ 5 %", share <= 5
    )


@row("import")
def importing(given: Settings) -> Iterator[Line]:
    times = Pair([], [])
    import_seconds("cam_engine.cam")  # from now on it is in the file cache
    for _ in range(given.rounds(7, 3)):
        times.ours.append(import_seconds("cam_engine.cam"))
        times.theirs.append(import_seconds("torch"))
    yield slower("from cam_engine import CAM / import torch", times, 1.25)


@row("cuda")
def on_a_gpu(given: Settings) -> Iterator[Line]:
    if given.device != "cuda":
        return
    images, classes = jobs.pictures(given.batch, "cuda"), jobs.classes(given.batch)
    variants: dict[str, tuple[torch.dtype | None, bool, bool]] = {
        "float32": (None, False, False),
        "bf16 autocast": (torch.bfloat16, False, False),
        "fp16 autocast": (torch.float16, False, False),
        "bf16 autocast, channels last": (torch.bfloat16, True, False),
        "compiled (the look runs eagerly)": (None, False, True),
    }
    for name, (precision, last, compiled) in variants.items():
        plain = jobs.network(device="cuda")
        batch = images.contiguous(memory_format=torch.channels_last) if last else images
        if last:
            plain = plain.to(memory_format=torch.channels_last)
        model: nn.Module = torch.compile(plain) if compiled else plain  # type: ignore[assignment]
        if compiled:
            jobs.forward(model, batch)
        cam = CAM(model, jobs.SEVEN, LAST)
        with torch.autocast("cuda", dtype=precision, enabled=precision is not None):
            times = given.side_by_side(
                lambda cam=cam, batch=batch: jobs.explain(cam, batch, classes),
                lambda plain=plain, batch=batch: jobs.bare_pair(plain, plain.layer4, batch),
                given.rounds(30, 5),
            )
        yield slower(f"GPU, {name}: seven methods / forward + gradient", times)


def slower(what: str, times: Pair, limit: float | None = None) -> Line:
    """Ours over theirs, to be at most ``limit``."""
    middle, low, high = times.ratio()
    bar, passed = ("", None) if limit is None else (f"≤ {limit:g}×", middle <= limit)
    return Line(what, _time(times.ours), _time(times.theirs), f"{middle:.2f}× ({low:.2f}–{high:.2f})", bar, passed)


def faster(what: str, times: Pair, least: float | None = None) -> Line:
    """Theirs over ours, to be at least ``least``."""
    middle, low, high = times.ratio(faster=True)
    bar, passed = ("", None) if least is None else (f"≥ {least:g}×", middle >= least)
    return Line(what, _time(times.ours), _time(times.theirs), f"{middle:.3g}× ({low:.3g}–{high:.3g})", bar, passed)


def _time(times: list[float]) -> str:
    middle = float(np.median(times))
    return f"{middle:.2f} s" if middle >= 1 else f"{1e3 * middle:.1f} ms"
