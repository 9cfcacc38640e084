"""The lock: one thread of one process at a time delivers to a place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other thread or process is inside with the same file, which is made and stays.

    The system gives the lock back when its process ends, however it ends. Where none can be had (some shared file systems of
    clusters, a full disk), it goes on without.
    """
    with ExitStack() as held:
        with suppress(OSError):
            # A lock that is only a file would outlive a process that is killed, and hold up everybody after it.
            held.enter_context(FileLock(path, fallback_to_soft=False))
        yield
