"""Lightning callbacks that show, epoch by epoch, where a model looks, and say in numbers whether that is right."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cam_callbacks.records import Record, RecordError, RecordStore
from cam_engine import __version__ as __version__

if TYPE_CHECKING:
    from cam_callbacks.accepted_runs import calibrate
    from cam_callbacks.callback import CAMCallback
    from cam_callbacks.look.monitor import CAMMonitor
    from cam_callbacks.probe import ProbeSet
    from cam_callbacks.replay_shards import Shard
    from cam_callbacks.replaying import replay

__all__ = [
    "CAMCallback",
    "CAMMonitor",
    "ProbeSet",
    "Record",
    "RecordError",
    "RecordStore",
    "Shard",
    "calibrate",
    "replay",
]

# A module must not be called as a name that it offers: importing the module would hide the name.
_HOME_OF = {
    "CAMCallback": "callback",
    "CAMMonitor": "look.monitor",
    "ProbeSet": "probe",
    "Shard": "replay_shards",
    "calibrate": "accepted_runs",
    "replay": "replaying",
}


def __getattr__(name: str) -> Any:
    """Import torch and Lightning only where what needs them is asked for: reading records takes neither."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
