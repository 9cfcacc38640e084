"""Peak of resident memory of one job, run in a process of its own by engine.py.

Prints two numbers in MiB: by how much the resident memory grew at its peak during the job, and the whole process's peak.
The job runs once on one image first, so that libraries have made what they keep. The kernel's own count (VmHWM, set back
through /proc/self/clear_refs) sees every allocation, whoever made it.
"""

from __future__ import annotations

import argparse
import gc

import jobs
import torch
from measure import MIB, peak, reset_peak

from cam_engine import CAM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", help="bare, lean, seven, or a method's name")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--layer", default="layer4")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, images = jobs.network(), jobs.pictures(given.batch)
    layer = model.get_submodule(given.layer)
    many = given.case in ("scorecam", "ablationcam")

    def run(batch: torch.Tensor) -> object:
        if given.case in ("bare", "lean"):
            return {"bare": jobs.bare_pair, "lean": jobs.lean_pair}[given.case](model, layer, batch)
        cam = CAM(model, jobs.SEVEN if given.case == "seven" else given.case, given.layer, progress=False)
        return jobs.explain(cam, batch, jobs.classes(len(batch)))

    if not many:
        kept = run(images[:1])
        del kept
    gc.collect()
    start = reset_peak()
    kept = run(images)
    highest = peak()
    del kept
    print((highest - start) / MIB, highest / MIB)


if __name__ == "__main__":
    main()
