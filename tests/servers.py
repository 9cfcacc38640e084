"""Real servers for tests: an MLflow server and TensorBoard, on loopback, each in a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
PATIENCE = 200  # seconds, on a machine that has much else to do


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """The address of an ``mlflow server`` on SQLite that keeps the artifacts itself."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    uri = f"http://127.0.0.1:{port}"
    with running([sys.executable, "-m", "mlflow", "server", *where, *store], folder) as (process, log):
        wait(lambda: answers(f"{uri}/health"), process, log)
        yield uri


@pytest.fixture(scope="session")
def start_tensorboard(tmp_path_factory):
    """``start_tensorboard(logdir)``: the address of a TensorBoard on that folder, and its process."""
    with ExitStack() as stack:

        def start(logdir: Path):
            where = ["--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0", "--reload_interval", "1"]
            folder = tmp_path_factory.mktemp("tensorboard")
            process, log = stack.enter_context(running([sys.executable, "-m", "tensorboard.main", *where], folder))
            found = wait(lambda: re.search(r"at (http://\S+?)/? ", log.read_text()), process, log)
            return found[1], process

        yield start


@contextmanager
def running(command, folder):
    """A process with what it starts, and the file that it writes to; killed afterwards, unless it has died before."""
    log = folder / "log.txt"
    with open(log, "w") as output, subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True, env=os.environ | QUIET
    ) as process:  # fmt: skip
        try:
            yield process, log
            assert process.poll() is None, log.read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait(ready, process, log):
    """What ``ready()`` returns once it is true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if found := ready():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{process.args} did not start:\n{log.read_text()}")


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False
