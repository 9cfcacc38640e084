"""The lock: who is inside alone, and what never waits for it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from cam_callbacks import Record, RecordStore
from cam_callbacks.delivery import Delivery
from cam_callbacks.delivery.lock import alone


class Taking:
    """A sink that takes all."""

    name, address = "taking", None

    def __init__(self):
        self.taken = []

    def deliver(self, record, drawing):
        self.taken.append(record.look)

    def finish(self, store, drawing):
        pass


@pytest.fixture
def store(tmp_path):
    made = RecordStore(tmp_path / "cam")
    made.write(Record(0, 0, 0, {}, {("gradcam", "l"): np.ones((1, 2, 2), np.float32)}))
    return made


@pytest.fixture
def holder(tmp_path):
    """``holder(path)``: a process inside, whose forked worker lives on when it is killed."""
    processes = []

    def start(path):
        script = (
            "import os, time; from pathlib import Path; from cam_callbacks.delivery.lock import alone\n"
            f"with alone(Path({str(path)!r})):\n"
            "    child = os.fork()\n"
            "    if child: print(child, flush=True)\n"
            "    time.sleep(600)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        processes.append((process, int(process.stdout.readline())))
        return process

    yield start
    for process, child in processes:
        process.kill()
        process.wait()
        os.kill(child, signal.SIGKILL)


def test_one_thread_at_a_time_is_inside(tmp_path):
    inside, most = [], []

    def enter():
        for _ in range(5):
            with alone(tmp_path / ".lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 20 and (tmp_path / ".lock").is_file()


def test_a_silent_holder_holds_up_no_training_and_a_killed_one_nobody(store, holder):
    sink = Taking()
    delivery = Delivery(store, [sink])
    assert delivery.finish(60)  # makes the lock file
    (lock,) = store.folder.glob(".*.lock")
    store.write(Record(1, 1, 1, {}, {("gradcam", "l"): np.ones((1, 2, 2), np.float32)}))
    process = holder(lock)
    delivery = Delivery(store, [sink])
    delivery.offer()  # returns
    assert not delivery.finish(0.3) and sink.taken == [0]
    process.kill()
    process.wait()
    assert Delivery(store, [sink]).finish(60) and sink.taken == [0, 1]


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_delivered_from(store, monkeypatch, error):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.flock", refuse)
    sink = Taking()
    assert Delivery(store, [sink]).finish(60) and sink.taken == [0]
    assert not list(store.folder.glob("*.tmp"))


def test_an_error_inside_is_not_taken_for_a_lock_that_cannot_be_had(tmp_path):
    with pytest.raises(OSError, match="mine"), alone(tmp_path / ".lock"):
        raise OSError("mine")
    with alone(tmp_path / "no folder" / ".lock"):
        pass
