"""Many small jobs in a few processes, with a bar; Ctrl-C ends what is running and starts nothing more."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from datetime import datetime, timedelta
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from evidence.plans import Training

Job = Callable[[Training], dict[str, Any]]


def side_by_side(job: Job, todo: Sequence[Training], total: int, jobs: int) -> int:
    """Run ``job`` for each training, ``jobs`` at once.

    Args:
        job: Returns what it did, with ``"seconds"``; a module's function, for it goes to other processes.
        todo: What is not done yet.
        total: With what is done already.
        jobs: Processes, of one thread each.

    Returns:
        An exit status: 0, 1 where a job failed (the others go on), 130 after Ctrl-C.
    """
    failed, began = [], time.monotonic()
    done = total - len(todo)
    terminal = sys.stderr.isatty()
    bar = tqdm(total=total, initial=done, disable=not terminal, smoothing=0.05, unit="run")
    with ProcessPoolExecutor(jobs, get_context("spawn"), _alone) as pool:
        running: dict[Future[dict[str, Any]], Training] = {pool.submit(job, training): training for training in todo}
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    training = running.pop(future)
                    error = future.exception()
                    if error is not None:
                        failed.append(training.id)
                        text = "".join(traceback.format_exception(error))
                    else:
                        text = f"{training.id}: {future.result()['seconds']} s"
                    done += 1
                    bar.update()
                    left = (time.monotonic() - began) * (total - done) / (done - total + len(todo))
                    ends = datetime.now() + timedelta(seconds=left)
                    if terminal:
                        bar.set_postfix_str(training.id)
                    if error is not None or not terminal:
                        bar.write(f"[{done}/{total}, ends {ends:%a %H:%M}] {text}", file=sys.stderr)
        except KeyboardInterrupt:
            bar.write("Stopped; what is running ends first. Run again to go on.", file=sys.stderr)
            pool.shutdown(cancel_futures=True)
            return 130
        finally:
            bar.close()
    if failed:
        print("Failed:", *failed, sep="\n  ", file=sys.stderr)
    return int(bool(failed))


def _alone() -> None:
    """A worker: one thread, Ctrl-C is the parent's to handle, and it ends when its parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
