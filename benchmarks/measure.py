"""Measuring side by side: times that alternate, peaks of memory in fresh processes, and what they were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
MIB = 2**20
PEERS = ("torch", "torchvision", "grad-cam", "torchcam", "captum", "numpy")

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time, "thread": time.thread_time}

Job = Callable[[], Any]


@dataclass(frozen=True)
class Pair:
    """Times of two jobs, in seconds, one of each a round."""

    ours: list[float]
    theirs: list[float]

    def ratio(self, *, faster: bool = False) -> tuple[float, float, float]:
        """Median, lowest and highest of the rounds' ratios: ours / theirs, or with ``faster`` theirs / ours."""
        ratios = [b / a if faster else a / b for a, b in zip(self.ours, self.theirs, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


def alternate(
    ours: Job, theirs: Job, rounds: int, *, warm: bool = True, calls: int = 1, device: str = "cpu", clock: str = "wall"
) -> Pair:
    """Run both jobs in every round, the first one changing from round to round.

    ``warm``: one round before that. ``calls``: of ours in a round, where it takes so much less time than the other that a
    single call would show the machine's mood; their median counts.
    """
    pair = Pair([], [])
    if warm:
        ours(), theirs()
    for i in range(rounds):
        order = [(ours, pair.ours, calls), (theirs, pair.theirs, 1)]
        for job, times, count in order if i % 2 else reversed(order):
            times.append(statistics.median(seconds(job, device, clock) for _ in range(count)))
    return pair


def seconds(job: Job, device: str = "cpu", clock: str = "wall") -> float:
    """Time of one call: of the wall, or of this process on all its cores, which other processes hardly change."""
    _wait(device)
    start = CLOCKS[clock]()
    kept = job()
    _wait(device)
    taken = CLOCKS[clock]() - start
    del kept
    return taken


def least(job: Job, repeats: int = 5, clock: str = "cpu") -> float:
    """Time of the fastest of some calls."""
    return min(seconds(job, clock=clock) for _ in range(repeats))


def peak_of(case: str, **settings: Any) -> tuple[float, float]:
    """Growth of resident memory while a case of ``memory.py`` runs in a fresh process, and that process's peak, in MiB."""
    arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, str(HERE / "memory.py"), case, *arguments], capture_output=True, text=True, check=True
    )
    growth, peak = done.stdout.split()[-2:]
    return float(growth), float(peak)


def reset_peak() -> int:
    """Let this process's peak of resident memory start anew (Linux); returns the resident bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """Peak of resident bytes since :func:`reset_peak`, as the kernel counted it."""
    return _status("VmHWM")


def import_seconds(module: str) -> float:
    """Time of ``import module`` in a fresh interpreter, without the interpreter's own start."""
    code = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def machine(device: str) -> list[str]:
    """What was measured on, a line each."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    lines = [f"{os.cpu_count()} cores ({cpu}), torch threads: {torch.get_num_threads()}"]
    if device == "cuda":
        lines.append(f"GPU: {torch.cuda.get_device_name()}")
    tuned = {k: os.environ[k] for k in ("GLIBC_TUNABLES", "LD_PRELOAD", "THP_MEM_ALLOC_ENABLE") if k in os.environ}
    lines.append("memory allocator: " + (" ".join(f"{k}={v}" for k, v in tuned.items()) or "the system's, as it comes"))
    versions = [f"{name} {version}" for name in PEERS if (version := _version(name))]
    lines.append(f"Python {platform.python_version()}, " + ", ".join(versions))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines.append(f"{time.strftime('%Y-%m-%d')}, load average at the start: {load}")
    return lines


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain-text table."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table in markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; peaks of memory are measured on Linux only.")
