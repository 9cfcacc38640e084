"""Lightning callbacks that show, epoch by epoch, where a model looks, and say in numbers whether that is right."""

from typing import TYPE_CHECKING, Any

from cam_callbacks.monitor import CAMMonitor
from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Record, RecordError, RecordStore

if TYPE_CHECKING:
    from cam_callbacks.callback import CAMCallback

__all__ = ["CAMCallback", "CAMMonitor", "ProbeSet", "Record", "RecordError", "RecordStore"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import Lightning only where its callback is asked for: reading records takes no trainer."""
    if name == "CAMCallback":
        from cam_callbacks.callback import CAMCallback

        return CAMCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
