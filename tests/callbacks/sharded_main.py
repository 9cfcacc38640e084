"""Runs cases on several processes, over gloo.

Run as a script: ``sharded_main.py PROCESSES OUT CASE …`` writes to OUT, for each case, the answers of all ranks. ``fsdp1:CASE`` and
``zero3:CASE`` are the case under FSDP1 and DeepSpeed's ZeRO-3 in place of FSDP2.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).parent))
import sharded_cases
import sharded_failures
import sharded_unchanged

CASES = vars(sharded_cases) | vars(sharded_unchanged) | vars(sharded_failures)


def run(rank: int, count: int, out: str, names: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}.store", rank=rank, world_size=count)
    answers = {}
    for name in names:
        everyone: list[Any] = [None] * count
        engine, _, case = name.rpartition(":")
        sharded_cases.ENGINE["name"] = engine or "fsdp2"
        dist.all_gather_object(everyone, CASES[case]())
        answers[name] = everyone
        if rank == 0:
            Path(out).write_text(json.dumps(answers))
    dist.destroy_process_group()


if __name__ == "__main__":
    processes, target, *chosen = sys.argv[1:]
    # Forked, for what is imported here need not be once more in each.
    mp.start_processes(run, (int(processes), target, chosen), int(processes), start_method="fork")
