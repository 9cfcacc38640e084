"""Everything at once, again and again: a server that fails at random, a disk that fills, kills, two trainings at a time. After
``sync`` MLflow and TensorBoard hold every look, metric and picture exactly once.

A round is two forked processes, which log numbers and write looks as a training does, each through a proxy of its own; whatever
goes wrong is drawn from the round's number.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from proxy import Answer, Fault, Proxy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

import cam_callbacks.delivery.background
from cam_callbacks.delivery import Delivery
from cam_callbacks.delivery.addresses import ADDRESSES
from cam_callbacks.delivery.outbox import Outbox
from cam_callbacks.delivery.sync import sync
from cam_callbacks.loggers.durable import DurableClient
from cam_callbacks.loggers.mlflow import MLflowSink
from cam_callbacks.loggers.tensorboard import TensorBoardSink
from cam_callbacks.records import Record, RecordStore, own_store

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "20"))
WITH_ONE_SERVER = 20  # others are played beside them
LOOKS, NUMBERS = 3, 4  # of a training, and of a look
SERVERS = (
    "well",
    "fails now and then",
    "fails often",
    "a portal for a while",
    "down for a while",
    "killed and started again",
)
CODES = (401, 403, 404, 408, 429, 500, 502, 503, 504)  # those that another try may not get
WITH_BODY = (
    "/runs/get",
    "/runs/create",
    "/experiments/",
)  # to others nothing, or {}, is how MLflow says that all is well
LONGEST_LOOK = 30  # requests; a portal that comes and goes within one is not noticed
CLAIM = 4  # events until a training has its folder
EVENTS = 80  # of a training: files renamed, copied and removed, connections opened

MANIFEST = {
    "run": "soak", "created": 0.0, "version": "0", "model": "Net", "methods": ["gradcam"], "layers": ["layer"],
    "grids": {"layer": [2, 2]}, "target": "label", "reference": "settled", "picture_step": "epoch", "store_images": True,
    "probe": {"fingerprint": "0" * 64, "n": 1, "image_size": [16, 16], "ids": ["0"], "class_names": None, "groups": None},
}  # fmt: skip


def failing(kind: str, rng: random.Random, told: Counter[str]) -> Callable[[str, str], Answer | Fault | None]:
    """How a server fails; what it does is counted in ``told``."""
    asked, begin = 0, rng.randrange(40)
    end = begin + LONGEST_LOOK + rng.randrange(40)
    share = {"fails now and then": 0.1, "fails often": 0.3}.get(kind, 0.0)

    def rule(method: str, path: str) -> Answer | Fault | None:
        nonlocal asked
        asked += 1
        fault = None
        if begin <= asked < end:
            fault = {"a portal for a while": "braces", "down for a while": "reset"}.get(kind)
        if rng.random() < share:
            fault = rng.choice(("code", "reset", "answer lost", "empty body", "delay"))
        if fault == "empty body" and not any(part in path for part in WITH_BODY):
            fault = None
        if fault is None:
            return None
        told[fault] += 1
        if fault == "delay":
            time.sleep(0.2 * rng.random())
            return None
        answers: dict[str, Answer | Fault] = {
            "code": (rng.choice(CODES), b"<html>no</html>"), "reset": "reset", "answer lost": "lost", "empty body": (200, b""),
            "braces": (200, b"{}"),
        }  # fmt: skip
        return answers[fault]

    return rule


def trouble(rng: random.Random, place: Path, tell: Callable[[str], None]) -> None:
    """Of this process: it is killed at some event, or the disk of this place is full for some of them, or both, or none."""
    seen = 0
    fatal = rng.randrange(1, EVENTS) if rng.random() < 0.6 else -1
    is_after = rng.random() < 0.5
    full = range(0)
    if rng.random() < 0.5:
        begin = rng.randrange(CLAIM, EVENTS)
        full = range(begin, begin + rng.randrange(1, 40))

    def counting(real: Callable[..., Any], writes: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == fatal:
                if is_after:
                    real(*arguments, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            if writes and seen in full and str(place) in str(arguments[1]):
                tell("disk full")
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        return call

    os.replace, os.link, shutil.copyfile = (counting(real, True) for real in (os.replace, os.link, shutil.copyfile))
    os.unlink, socket.socket.connect = (counting(real, False) for real in (os.unlink, socket.socket.connect))


def training(folder: Path, uri: str, rng: random.Random, tell: Callable[[str], None]) -> None:
    """What a training does with loggers, queue and records; tells what is on disk, and so to be delivered."""
    cam_callbacks.delivery.background.RETRY = 0.05
    trouble(rng, folder.parent, tell)
    run = {"tracking_uri": uri, "run_id": None, "experiment_name": folder.name, "artifact_location": None, "tags": {}}
    queue = Outbox(folder / "queue", run)
    client, run_id = DurableClient(queue), queue.run["id"]
    store = own_store(RecordStore(folder.parent / "cam"), MANIFEST)
    tell(f"folder {store.folder}")
    store.write_probe({"pictures": np.full((1, 16, 16, 3), 99, np.uint8), "labels": np.zeros(1, int)})
    delivery = Delivery(store, [TensorBoardSink(SummaryWriter(str(folder / "board"))), MLflowSink(client, run_id)], 1)
    done: list[str] = []

    def tell_if_on_disk(what: str) -> None:
        done.append(what)
        if not queue.calls._in_memory and not store._unwritten and (store.folder / ADDRESSES).exists():
            tell("\n".join(done))
            done.clear()

    for number in range(LOOKS):
        for step in range(number * NUMBERS, (number + 1) * NUMBERS):
            client.log_metric(run_id, "loss", 1 / (1 + step), timestamp=step + 1, step=step)
            tell_if_on_disk(f"loss {step}")
        maps = np.arange(4, dtype=np.float32).reshape(1, 2, 2) + number
        store.write(
            Record(
                number, number, number, {"cam/entropy/gradcam": 0.5}, {("gradcam", "layer"): maps}, time=1e9 + number
            )
        )
        delivery.offer()
        tell_if_on_disk(f"look {number}")
    client.set_terminated(run_id, "FINISHED")
    delivery.finish(0.5)
    queue.flush(0.5)
    while not queue.calls.to_disk() or store._unwritten:  # in the end there is room again
        store.write_params({})
    delivery.finish(0.0)
    tell_if_on_disk("ended")


def forked(work: Callable[[Callable[[str], None]], None], start: int) -> tuple[int, int]:
    """Do it in a process of its own, once ``start`` can be read; its id, and where what it tells can be read."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        return child, reading
    try:
        os.read(start, 1)
        work(lambda line: os.write(writing, f"{line}\n".encode()) and None)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def end_of(child: int, reading: int) -> tuple[int, list[str]]:
    """How the process ended, and what it told."""
    with os.fdopen(reading) as stream:
        lines = stream.read().splitlines()
    return os.waitpid(child, 0)[1], lines


def check(folder: Path, lines: list[str], client: MlflowClient) -> Counter[str]:
    """What one training told is there, once, and nothing that it never did; how much that was."""
    told = [line.split() for line in lines]
    steps = {int(words[1]) for words in told if words[0] == "loss"}
    experiment = client.get_experiment_by_name(folder.name)
    runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
    assert len(runs) <= 1, "two runs of one training"
    history = [metric.step for run in runs for metric in client.get_metric_history(run.info.run_id, "loss")]
    assert len(set(history)) == len(history), "a number twice"
    assert steps <= set(history) <= set(range(LOOKS * NUMBERS)), "a number is lost"
    if ["ended"] in told:
        assert runs[0].info.status == "FINISHED" and len(steps) == LOOKS * NUMBERS
    assert not list((folder / "queue").glob("[0-9]*.*")), "something waits, is refused or damaged"
    records = next((Path(words[1]) for words in told if words[0] == "folder"), None)
    looks = set() if records is None or not (records / ADDRESSES).exists() else set(RecordStore(records).looks)
    assert {int(words[1]) for words in told if words[0] == "look"} <= looks, "a look is lost"
    if not looks:
        return Counter(numbers=len(history))
    events = EventAccumulator(str(folder / "board"), size_guidance={"images": 0})
    events.Reload()
    drawn = Counter((tag, image.step) for tag in events.Tags()["images"] for image in events.Images(tag))
    assert set(drawn.values()) <= {1}, "a picture twice in TensorBoard"
    wanted = {(f"cam/gradcam/{what}", look) for look in looks for what in ("0", "sheet")}
    assert wanted <= set(drawn), "a picture is lost to TensorBoard"
    run_id = runs[0].info.run_id
    kept = Counter(Path(file.path).name for file in client.list_artifacts(run_id, "cam/records"))
    assert {f"look-{look:06d}.npz" for look in looks} <= set(kept), "a look is lost to MLflow"
    images = Counter(
        file.path.partition("+timestamp+")[0] + file.path[-4:] for file in client.list_artifacts(run_id, "images")
    )
    assert set(images.values()) <= {1}, "a picture twice in MLflow"
    wanted = {f"images/cam~gradcam~0+step+{look}{end}" for look in looks for end in (".png", "webp")}
    assert wanted <= set(images), "a picture is lost to MLflow"
    return Counter(numbers=len(history), looks=len(looks), pictures=len(drawn) + len(images))


def play(seed: int, folder: Path, server: Any, proxies: list[Proxy]) -> Counter[str]:
    """One round; counts what happened."""
    rng, total = random.Random(seed), Counter(rounds=1)
    kind = rng.choice(SERVERS)
    trainings = [folder / f"{folder.name}-{letter}" for letter in "ab"]
    start, go = os.pipe()
    children = []
    for place, proxy in zip(trainings, proxies, strict=True):
        place.mkdir(parents=True)
        proxy.rule, seed_of_its_own = failing(kind, random.Random(rng.random()), total), rng.random()
        children.append(
            forked(lambda tell, p=place, u=proxy.uri, s=seed_of_its_own: training(p, u, random.Random(s), tell), start)
        )
    os.write(go, b"12")
    if kind == "killed and started again":
        time.sleep(rng.random())
        server.kill()
        total["servers killed"] += 1
    ends = [end_of(*child) for child in children]
    for descriptor in (start, go):
        os.close(descriptor)
    for status, lines in ends:
        assert status in (0, signal.SIGKILL) and (status == 0) == ("ended" in lines), f"a training ended with {status}"
        total += Counter({"trainings killed": int(status != 0), "disk full": lines.count("disk full")})
    with suppress(ConnectionError, FileNotFoundError):
        sync(folder, wait=1)  # while the server fails
    for thread in threading.enumerate():  # what they are at, the portal is to see the end of
        if thread.name.startswith("cam-callbacks"):
            thread.join()
    if kind == "killed and started again":
        server.start()
    for proxy in proxies:
        proxy.rule = lambda method, path: None
    with suppress(FileNotFoundError):  # killed before anything was there
        sync(folder, wait=60)
    for place, (_, lines) in zip(trainings, ends, strict=True):
        total += check(place, lines, MlflowClient(server.uri))
    return total


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, ROUNDS, WITH_ONE_SERVER))
def test_rounds(first, tmp_path, server, monkeypatch, record_property):
    """``make soak SOAK_ROUNDS=200 PYTEST_ARGS="-k test_rounds --junitxml=rounds.xml"``: two hundred, and what happened."""
    for name, value in {"MAX_RETRIES": "0", "TIMEOUT": "20"}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    monkeypatch.setattr("cam_callbacks.delivery.background.RETRY", 0.05)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")  # where MLflow's client puts files that a portal's answer leads nowhere
    server.start()
    total, started = Counter[str](), time.monotonic()
    with ExitStack() as stack:
        proxies = [stack.enter_context(closing(Proxy(server.uri))) for _ in range(2)]
        for seed in range(first, min(first + WITH_ONE_SERVER, ROUNDS)):
            try:
                total += play(seed, tmp_path / f"round-{seed}", server, proxies)
            except BaseException as error:
                error.add_note(f"in round {seed}")
                raise
    for name, number in {**total, "seconds": round(time.monotonic() - started)}.items():
        record_property(name, number)  # for docs/promises.md
    assert total["trainings killed"] and total["disk full"] and total["looks"] > total["rounds"]
