"""``python -m cam_callbacks.cli`` is ``cam-callbacks``."""

import sys

from cam_callbacks.cli import main

sys.exit(main())
