"""Run `torchvision_cpu_ops.install()` when torchvision is imported, and cost nothing until then.

`setup_peers.py` copies this file and `torchvision_cpu_ops.py` into the site-packages of .venv-peers, with a `.pth` line
that imports it at start-up. So every process has it, also those that a test or a data loader starts.
"""

import importlib
import importlib.machinery
import sys


class _Finder:
    """Finds torchvision as usual, but has it loaded by `_Loader`."""

    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader()
        return spec


class _Loader:
    """Defines the operators, then imports the real torchvision in its own place."""

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        # A module may replace itself in sys.modules while it is executed; the import system then takes what it finds.
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
        del sys.modules["torchvision"]
        importlib.import_module("torchvision_cpu_ops").install()
        importlib.import_module("torchvision")


if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _Finder())
