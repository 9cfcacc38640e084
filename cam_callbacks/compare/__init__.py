"""Records of several runs side by side: as a table, as a pandas frame, as one HTML page.

>>> from cam_callbacks.compare import compare_runs
>>> comparison = compare_runs("runs/clean/cam", "runs/shortcut/cam")    # doctest: +SKIP
>>> print(comparison.text())                                            # doctest: +SKIP
>>> comparison.write("compare.html")                                    # doctest: +SKIP

Data flows `load → agree → table, curves, strips → page`.
"""

from cam_callbacks.compare.comparison import Comparison, compare_runs
from cam_callbacks.compare.load import LoadError, Run, load_run, load_runs, read_runs
from cam_callbacks.compare.page import write_page

__all__ = ["Comparison", "LoadError", "Run", "compare_runs", "load_run", "load_runs", "read_runs", "write_page"]
