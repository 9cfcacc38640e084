"""A real MLflow server on loopback, that comes and goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from proxy import Proxy
from servers import QUIET, answers, wait

from cam_callbacks.delivery.outbox import Outbox


class Server:
    """``mlflow server`` in a process group of its own, on a port that stays the same over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--artifacts-destination", str(self.folder / "store"),
        ]  # fmt: skip
        path = self.folder / "server.log"
        with open(path, "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, env=os.environ | QUIET
            )
        wait(lambda: answers(f"{self.uri}/health"), self._process, path)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Not started yet."""
    made = Server(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def proxy(mlflow_server, monkeypatch) -> Iterator[Proxy]:
    """Before the server; its client asks once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    made = Proxy(mlflow_server)
    yield made
    made.close()


@pytest.fixture
def make_queue(tmp_path) -> Callable[[Path], Outbox]:
    """Queues of a run that is yet to be made in ``m.db``; nobody delivers them but the test."""

    def make(folder: Path) -> Outbox:
        run = {"tracking_uri": f"sqlite:///{tmp_path}/m.db", "run_id": None, "experiment_name": "e"}
        queue = Outbox(folder, run | {"artifact_location": str(tmp_path / "artifacts"), "tags": {}})
        queue.background.stop()
        return queue

    return make
