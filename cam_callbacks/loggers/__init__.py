"""Where a record's pictures and files go, beside the scalars that Lightning logs itself."""

from typing import TYPE_CHECKING, Any

from cam_callbacks.delivery.sink import LoggerSink, Moved, SinkOptions
from cam_callbacks.loggers.log_image import LogImageSink
from cam_callbacks.loggers.mlflow import MLflowSink
from cam_callbacks.loggers.registry import register_sink
from cam_callbacks.loggers.tensorboard import TensorBoardSink
from cam_callbacks.loggers.wandb import WandbSink

if TYPE_CHECKING:
    from cam_callbacks.loggers.durable import DurableMLFlowLogger

__all__ = [
    "DurableMLFlowLogger",
    "LogImageSink",
    "LoggerSink",
    "MLflowSink",
    "Moved",
    "SinkOptions",
    "TensorBoardSink",
    "WandbSink",
    "register_sink",
]


def __getattr__(name: str) -> Any:
    """Import Lightning and MLflow only where their logger is asked for."""
    if name != "DurableMLFlowLogger":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cam_callbacks.loggers.durable import DurableMLFlowLogger

    return DurableMLFlowLogger
