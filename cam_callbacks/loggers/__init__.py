"""Where a record's pictures and files go, beside the scalars that Lightning logs itself."""

from cam_callbacks.loggers.mlflow import MLflowSink
from cam_callbacks.loggers.tensorboard import TensorBoardSink

__all__ = ["MLflowSink", "TensorBoardSink"]
