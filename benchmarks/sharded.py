"""What a look costs at a model that is spread over processes: its time and peak memory over those of a training step.

    .venv/bin/python benchmarks/sharded.py                                     # a small ViT, two CPU processes over gloo
    .venv-peers/bin/python benchmarks/sharded.py --device cuda --network vit_l --processes 4     # a GPU each; also convnext_l

A training step is forward, backward and Adam on ``--batch`` images a process; a look explains as many images a process, by
EigenCAM and GradCAM. "maps" is a look of a run whose focus has settled, without exchange tests; "look" is the same with them, 64
mixtures for each part that images exchange, which are forwards alone, and as many however large the batch. Time is the wall's on
CUDA; on CPU it is processor time, for how long processes wait for each other depends on what else the machine does. Memory is what
a process needs beyond what it holds between steps (parameters, Adam's moments): as CUDA's allocator counts it, on CPU resident,
as the kernel does. The jobs take turns; medians of the rounds' ratios are shown, and their range in brackets.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Large blocks go back to the system as soon as they are freed, so that the next peak is its own.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=262144:glibc.malloc.trim_threshold=262144")

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from measure import MIB, aligned, machine, peak, reset_peak
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from cam_callbacks import CAMMonitor, ProbeSet

RESULTS = Path(__file__).parent / "results" / "sharded.json"
JOBS = ("step", "maps", "look")
CLASSES = 10
Figures = dict[str, list[tuple[float, float]]]  # seconds and bytes of each job, a pair a round


@dataclass(frozen=True)
class Network:
    """``size``: of its images. ``batch``: images a process. ``layer``: explained. ``blocks``: what is sharded one by one."""

    make: Callable[[], nn.Module]
    size: int
    batch: int
    layer: str
    blocks: Callable[[Any], list[nn.Module]]


class Block(nn.Module):
    """Attention and a perceptron of two linear layers, each behind a normalisation and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.first, self.second = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.projected, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.projected(self.first(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        x = x + self.mixed(attended)
        return x + self.narrow(nn.functional.gelu(self.wide(self.second(x))))


class VisionTransformer(nn.Module):
    """Patches, encoded by blocks; their mean is classified."""

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.places = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def convnext_l() -> nn.Module:
    from torchvision.models import convnext_large

    return convnext_large(num_classes=CLASSES)


NETWORKS = {
    "vit_small": Network(lambda: VisionTransformer(64, 8, 192, 4, 3), 64, 8, "blocks.3", lambda net: list(net.blocks)),
    "vit_l": Network(lambda: VisionTransformer(224, 16, 1024, 24, 16), 224, 32, "blocks.23", lambda net: list(net.blocks)),
    "convnext_l": Network(
        convnext_l, 224, 32, "features.7", lambda net: [block for stage in net.features[1::2] for block in stage]
    ),
}  # fmt: skip


def replicated(net: nn.Module, chosen: Network, mesh: DeviceMesh) -> nn.Module:
    """As under DDP; the module that a look is given is the one inside."""
    return nn.parallel.DistributedDataParallel(net)


def fsdp2(net: nn.Module, chosen: Network, mesh: DeviceMesh) -> nn.Module:
    for block in chosen.blocks(net):
        fully_shard(block, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def fsdp1(net: nn.Module, chosen: Network, mesh: DeviceMesh) -> nn.Module:
    policy = ModuleWrapPolicy({type(block) for block in chosen.blocks(net)})
    device = next(net.parameters()).device
    return FullyShardedDataParallel(net, auto_wrap_policy=policy, device_id=device, use_orig_params=True)


def tensor_parallel(net: nn.Module, chosen: Network, mesh: DeviceMesh) -> nn.Module:
    for block in chosen.blocks(net):
        parallelize_module(block, mesh, {"wide": ColwiseParallel(), "narrow": RowwiseParallel()})
    return net


STRATEGIES = {"DDP": replicated, "FSDP2": fsdp2, "FSDP1": fsdp1, "tensor parallel": tensor_parallel}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="vit_small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, help="images a process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds, and no results file")
    given = parser.parse_args()
    given.batch = given.batch or NETWORKS[given.network].batch
    given.rounds = 2 if given.quick else given.rounds
    strategies = [name for name in STRATEGIES if name != "tensor parallel" or given.network != "convnext_l"]
    figures = {name: measured(name, given) for name in strategies}
    notes = [f"{given.network}, {given.processes} processes, {given.batch} images each, {given.rounds} rounds"]
    notes += machine(given.device)
    print("\n".join(notes), aligned(*table(figures)), sep="\n\n")
    if not given.quick:
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        known[f"{given.network} {given.device}"] = {"notes": notes, "figures": figures}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def measured(strategy: str, given: argparse.Namespace) -> Figures:
    """Of rank 0, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (given, strategy, folder), given.processes)
        figures: Figures = json.loads((Path(folder) / "figures.json").read_text())
        return figures


def work(rank: int, given: argparse.Namespace, strategy: str, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    device = torch.device(given.device, rank if given.device == "cuda" else None)
    if given.device == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if given.device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=rank, world_size=given.processes)
    jobs = jobs_of(strategy, given, device)
    figures: Figures = {name: [] for name in JOBS}
    for number in range(given.rounds + 1):
        for name in JOBS if number % 2 else JOBS[::-1]:
            dist.barrier()
            taken = cost(jobs[name], given.device)
            if number:  # the first round makes what later ones keep
                figures[name].append(taken)
    if rank == 0:
        (Path(folder) / "figures.json").write_text(json.dumps(figures))
    dist.barrier()
    dist.destroy_process_group()


def jobs_of(strategy: str, given: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], object]]:
    """The training step, a look without more than maps, and one as it comes."""
    chosen = NETWORKS[given.network]
    torch.manual_seed(0)
    model = STRATEGIES[strategy](chosen.make().to(device), chosen, init_device_mesh(given.device, (given.processes,)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    images = torch.randn(given.batch, 3, chosen.size, chosen.size, device=device)
    labels = torch.arange(given.batch, device=device) % CLASSES

    def step() -> None:
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    net = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    maps, whole = (monitor(strategy, given, reference="first", **options) for options in ({"exchange": ()}, {}))
    step()  # Adam's moments are there from now on
    for watch in (maps, maps, maps, whole, whole, whole):  # and a reference, and a focus that has settled
        watch.look(net)
    return {"step": step, "maps": lambda: maps.look(net), "look": lambda: whole.look(net)}


def monitor(strategy: str, given: argparse.Namespace, **options: Any) -> CAMMonitor:
    """Of a probe of which each process explains as many images as it trains on at a step."""
    chosen = NETWORKS[given.network]
    shares = 1 if strategy == "tensor parallel" else given.processes
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(given.batch * shares, 3, chosen.size, chosen.size, generator=generator)
    probe = ProbeSet(images, [i % CLASSES for i in range(len(images))])
    return CAMMonitor(probe, layers=chosen.layer, batch_size=given.batch, **options)


def cost(job: Callable[[], object], device: str) -> tuple[float, float]:
    """Seconds, and bytes beyond those that were held before."""
    cuda = device == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else reset_peak()
    clock = time.perf_counter if cuda else time.process_time
    start = clock()
    job()
    if cuda:
        torch.cuda.synchronize()
    seconds = clock() - start
    return seconds, float((torch.cuda.max_memory_allocated() if cuda else peak()) - before)


def table(figures: dict[str, Figures]) -> tuple[list[str], list[list[str]]]:
    header = ["strategy", "step", "memory of a step", "maps: time", "look: time", "maps: memory", "look: memory"]
    rows = []
    for strategy, of in figures.items():
        seconds, memory = (statistics.median(pair[i] for pair in of["step"]) for i in (0, 1))
        ratios = [ratio(of, job, i) for i in (0, 1) for job in ("maps", "look")]
        rows.append([strategy, f"{seconds:.2f} s", f"{memory / MIB:.0f} MiB", *ratios])
    return header, rows


def ratio(of: Figures, job: str, index: int) -> str:
    """Of a job over the training step of its round."""
    ratios = [mine[index] / step[index] for mine, step in zip(of[job], of["step"], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


if __name__ == "__main__":
    main()
