"""The way from records on disk to loggers: it holds up no training, and nothing that was written is lost on it."""

from cam_callbacks.delivery.budget import WAIT
from cam_callbacks.delivery.delivery import Delivery
from cam_callbacks.delivery.ledger import Ledger
from cam_callbacks.delivery.sink import Sink

__all__ = ["WAIT", "Delivery", "Ledger", "Sink"]
