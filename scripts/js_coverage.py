"""How much of the viewer's script the tests in a browser ran, file by file where esbuild is there to say which file that is.

    python scripts/js_coverage.py htmlcov/js --fail-under 90

The folder holds V8's counts (tests/browser/script_coverage.py). Shares are of the characters of the minified bundle; those of
uPlot, which is not ours, stand apart.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = (ROOT / "cam_callbacks" / "compare" / "assets" / "viewer.js").read_text(encoding="ascii")
DIGITS = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


def main() -> int:
    given = parse()
    counts = [json.loads(path.read_text()) for path in sorted(given.folder.glob("*.json"))]
    if not counts:
        print(f"no counts in {given.folder}")
        return 1
    ran, functions = executed(counts)
    owner, names = owners()
    rows = {name: np.flatnonzero(owner == i) for i, name in enumerate(names)}
    ours = np.concatenate([where for name, where in rows.items() if "uplot" not in name.lower()])
    for name, where in sorted(rows.items()):
        print(f"{name:<28}{100 * ran[where].mean():>5.0f} %{functions_of(functions, where):>24}")
    share = 100 * ran[ours].mean()
    print(f"{'ours':<28}{share:>5.1f} %{functions_of(functions, ours):>24}")
    return int(share < given.fail_under)


def executed(counts: list[dict]) -> tuple[np.ndarray, dict[int, bool]]:
    """Of each character of the bundle, did it run in any page; and of each function, by where it begins."""
    ran, functions = np.zeros(len(BUNDLE), bool), {}
    for page in counts:
        here = np.zeros(len(BUNDLE), bool)
        ranges = [r for function in page["functions"] for r in function["ranges"]]
        for one in sorted(ranges, key=lambda r: (r["startOffset"], -r["endOffset"])):  # what is inside overrides
            here[max(0, one["startOffset"] - page["at"]) : max(0, one["endOffset"] - page["at"])] = one["count"] > 0
        ran |= here
        for function in page["functions"]:
            start = function["ranges"][0]["startOffset"] - page["at"]
            functions[start] = functions.get(start, False) or function["ranges"][0]["count"] > 0
    return ran, functions


def functions_of(functions: dict[int, bool], where: np.ndarray) -> str:
    places = set(where.tolist())
    inside = [ran for start, ran in functions.items() if start in places]
    return f"{sum(inside)} of {len(inside)} functions"


def owners() -> tuple[np.ndarray, list[str]]:
    """For each character of the bundle the index of its file, −1 for the licence; and the files."""
    esbuild = ROOT / "viewer" / "node_modules" / ".bin" / "esbuild"
    if not esbuild.exists():
        print("viewer/node_modules is not there: the bundle as a whole, with uPlot")
        return np.zeros(len(BUNDLE), int), ["viewer.js"]
    with tempfile.TemporaryDirectory() as folder:
        how = (
            "--bundle --format=iife --target=es2022 --minify --charset=ascii --legal-comments=none --sourcemap=external"
        )
        command = [str(esbuild), "src/viewer.js", *how.split(), "--log-level=warning", f"--outdir={folder}"]
        subprocess.run(command, cwd=ROOT / "viewer", check=True)
        code, built = (Path(folder, name).read_text() for name in ("viewer.js", "viewer.js.map"))
    begin = BUNDLE.index(code.strip())  # the same code as build.mjs makes, without the licence
    source_map = json.loads(built)
    owner = np.full(len(BUNDLE), -1)
    line_starts = np.cumsum([0, *(len(line) + 1 for line in code.split("\n"))])
    spots = [(line_starts[line] + column, source) for line, column, source in mappings(source_map["mappings"])]
    for (start, source), (end, _) in zip(spots, [*spots[1:], (len(code), 0)], strict=True):
        owner[begin + start : begin + end] = source
    return owner, [Path(name).name for name in source_map["sources"]]


def mappings(text: str) -> Iterator[tuple[int, int, int]]:
    """Line, column and source of each segment of a source map (base64 VLQ, each number relative to the last)."""
    source = 0
    for line, segments in enumerate(text.split(";")):
        column = 0
        for segment in filter(None, segments.split(",")):
            numbers = list(vlq(segment))
            column += numbers[0]
            source += numbers[1] if len(numbers) > 1 else 0
            yield line, column, source


def vlq(segment: str) -> Iterator[int]:
    value = shift = 0
    for digit in map(DIGITS.__getitem__, segment):
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            yield -(value >> 1) if value & 1 else value >> 1
            value = shift = 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fail-under", type=float, default=0.0, metavar="PERCENT")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
