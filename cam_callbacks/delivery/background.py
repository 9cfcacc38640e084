"""A thread that works beside the training, and takes nothing from it: no waiting, no random numbers."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

RETRY = 10.0  # seconds until what failed is tried again


class Background:
    """Calls ``attempt`` in a daemon thread when woken, and again after a while where it raised.

    Signals are counted, not queued: what there is to do lies on disk. The thread starts with the first signal; a process
    forked from this one has none.

    Args:
        name: Of the thread.
        attempt: Does all there is to do, or raises.
    """

    def __init__(self, name: str, attempt: Callable[[], None]) -> None:
        self.name = name
        self.attempt = attempt
        self.error: Exception | None = None
        self.seconds = 0.0  # of processor time that its attempts took
        self._signals = self._handled = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def wake(self) -> None:
        """There is something to do. Returns at once."""
        self._signal()

    def flush(self, wait: float) -> bool:
        """Let it attempt once more, and wait at most so many seconds for that; did it succeed?"""
        mine = self._signal()
        with self._changed:
            return self._changed.wait_for(lambda: self._handled >= mine, wait) and self.error is None

    def stop(self) -> None:
        """End the thread when it has done what it is at; a later signal starts another."""
        with self._changed:
            self._thread = None
            self._changed.notify_all()

    def _signal(self) -> int:
        if os.getpid() != self._process:
            return 0
        keep_off_random_streams()
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                self._thread.start()
            self._signals += 1
            self._changed.notify_all()
            return self._signals

    def _run(self) -> None:
        me = threading.current_thread()
        _HERE.is_background = True
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._thread is not me or self._signals > self._handled,
                    None if self.error is None else RETRY,
                )
                if self._thread is not me:
                    return
                signals = self._signals
            error, started = None, time.thread_time()
            try:
                self.attempt()
            except Exception as caught:
                error = caught
            self.seconds += time.thread_time() - started
            with self._changed:
                self._handled, self.error = signals, error
                self._changed.notify_all()


class _Apart:
    """Python's ``random``, with numbers of its own for the threads of :class:`Background`; for all others it is what it was."""

    def __init__(self) -> None:
        self._own = random.Random()

    def __getattr__(self, name: str) -> Any:
        source = self._own if getattr(_HERE, "is_background", False) else random
        return getattr(source, name)


_HERE = threading.local()
_APART = _Apart()
_DRAWING = ("urllib3.util.retry", "mlflow.utils.name_utils", "mlflow.utils.request_utils", "mlflow.utils.rest_utils",
            "mlflow.store.tracking.sqlalchemy_store")  # fmt: skip


def keep_off_random_streams() -> None:
    """Give urllib3 and MLflow random numbers of their own in our threads.

    The pauses between their retries, and the names of runs, are drawn from Python's global stream, which belongs to the
    training: it would take another course.
    """
    for name in _DRAWING:
        module: Any = sys.modules.get(name)
        if getattr(module, "random", None) is random:
            module.random = _APART
