"""Lightning callbacks that show, epoch by epoch, where a model looks, and say in numbers whether that is right."""

from cam_callbacks.probe import ProbeSet
from cam_callbacks.records import Record, RecordError, RecordStore

__all__ = ["ProbeSet", "Record", "RecordError", "RecordStore"]
__version__ = "0.1.0"
