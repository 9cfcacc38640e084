"""The tab CAM in TensorBoard: the runs under its log folder that have records, side by side, live.

Every start of TensorBoard imports this module, and dies of an error in it. So it imports TensorBoard's base class alone,
and what goes wrong later is a warning.
"""

from __future__ import annotations

import logging
from typing import Any

from tensorboard.plugins import base_plugin

log = logging.getLogger(__name__)


class CAMLoader(base_plugin.TBLoader):
    """What the entry point ``tensorboard_plugins`` names."""

    def load(self, context: base_plugin.TBContext) -> Any:
        """The plugin; None, and TensorBoard goes without, where it cannot be made."""
        try:
            from cam_callbacks.tensorboard_plugin.plugin import CAMPlugin

            return CAMPlugin(context)
        except Exception as error:
            log.warning("cam-callbacks: no CAM tab (%s: %s)", type(error).__name__, error)
            return None
