"""Make a virtual environment with this project in it, installed through the pinned versions.

    python3 scripts/setup_env.py .venv --extras test

Standard library only, so that any Python 3.11+ can run it on a fresh machine. Run again, it adds what is missing,
and returns at once where nothing changed. Extras accumulate: an environment made for `demo`, then for `test`, serves
both.
"""

import argparse
import collections
import hashlib
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
STAMP = "cam-callbacks-setup.json"
OPENCV = "opencv-python"
# Distributions that all install the same folder `cv2`, over one another.
OPENCV_ALIKE = (OPENCV, "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


class SetupError(Exception):
    """Something the user has to see and can act on."""


class Environment:
    """A virtual environment, and the few things that are done to it."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.python = self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self._stamp = self.folder / STAMP

    def make(self):
        """Create the environment unless it is there and its interpreter still starts."""
        if self._starts():
            return
        say(f"making {shown(self.folder)} with Python {sys.version_info.major}.{sys.version_info.minor}")
        try:
            venv.create(self.folder, with_pip=True, clear=self.folder.exists(), symlinks=os.name != "nt")
        except (subprocess.CalledProcessError, OSError) as error:
            raise SetupError(
                f"could not make {self.folder}: {error}\nOn Debian and Ubuntu this needs the package python3-venv."
            ) from error

    def install(self, what, *arguments, constraints):
        """`pip install` through a constraints file, with one line on what is happening."""
        say(f"installing {what}")
        began = time.monotonic()
        pip(self.python, "install", "-c", str(constraints), *arguments)
        say(f"  done in {time.monotonic() - began:.0f} s")

    def settle_cv2(self):
        """Leave exactly one distribution that provides `cv2`, and one that can be imported here."""
        present = self._opencv_versions()
        broken = self._cv2_error() if len(present) == 1 else None
        if len(present) == 1 and broken is None:
            return
        version = present.get(OPENCV) or next(iter(present.values()), None)
        if version is None:
            raise SetupError(f"no {OPENCV} was installed into {self.folder}")
        if len(present) > 1:
            say(f"{' and '.join(present)} overwrite each other's cv2: keeping one")
            broken = self._swap_cv2(present, OPENCV, version)
        if broken is not None and is_missing_library(broken):
            say(f"{OPENCV} cannot load here ({last_line(broken)}): opencv-python-headless {version} takes its place")
            broken = self._swap_cv2(self._opencv_versions(), "opencv-python-headless", version)
        if broken is not None:
            raise SetupError(f"`import cv2` fails in {self.folder}:\n{broken}")

    def run(self, code):
        """Run a line of Python in the environment."""
        return subprocess.run([str(self.python), "-c", code], capture_output=True, text=True)

    def read_stamp(self):
        try:
            return json.loads(self._stamp.read_text())
        except (OSError, ValueError):
            return {}

    def write_stamp(self, stamp):
        self._stamp.write_text(json.dumps(stamp, indent=1) + "\n")

    def _starts(self):
        return self.python.exists() and self.run("import pip").returncode == 0

    def _opencv_versions(self):
        code = f"""
import importlib.metadata as m
for name in {OPENCV_ALIKE!r}:
    try: print(name, m.version(name))
    except m.PackageNotFoundError: pass"""
        return dict(line.split() for line in self.run(code).stdout.splitlines())

    def _cv2_error(self):
        """What `import cv2` prints when it fails; None when it works."""
        done = self.run("import cv2; cv2.applyColorMap")
        return None if done.returncode == 0 else done.stderr

    def _swap_cv2(self, present, wanted, version):
        # All of them are taken out first: uninstalling one deletes files that the others believe to own.
        pip(self.python, "uninstall", "-y", *present)
        pip(self.python, "install", "--no-deps", f"{wanted}=={version}")
        return self._cv2_error()


def main(arguments=None):
    options = parse(arguments)
    need_new_enough_python()
    environment = Environment(options.folder)
    inputs = [ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__)]
    before = environment.read_stamp()
    extras = sorted({*options.extras, *before.get("extras", [])})
    stamp = {"inputs": fingerprint(inputs), "extras": extras}
    if before == stamp and environment.python.exists():
        return
    environment.make()
    install_project(environment, extras, ROOT / "constraints.txt")
    environment.write_stamp(stamp)
    say(f"{shown(environment.folder)} is ready ({', '.join(extras) or 'no extras'})")


def install_project(environment, extras, constraints, *more):
    """torch first, then the project in editable mode, then a `cv2` that works."""
    environment.install("torch", "torch", constraints=constraints)
    project = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    environment.install("the project and what it needs", "-e", project, *more, constraints=constraints)
    environment.settle_cv2()


def pip(python, *arguments):
    """Run pip; on a terminal show what it is at, and on failure the end of what it said."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    tail = collections.deque(maxlen=30)
    live = sys.stdout.isatty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            if not line.strip().startswith("WARNING: Location"):
                tail.append(line)
            if live and line.startswith(("Collecting", "Installing", "Building", "  Downloading")):
                print(f"\r\033[K  {line.strip()[:100]}", end="", flush=True)
    if live:
        print("\r\033[K", end="", flush=True)
    if process.returncode != 0:
        raise SetupError(f"pip {arguments[0]} failed:\n{''.join(tail)}")


def need_new_enough_python():
    if sys.version_info < OLDEST_PYTHON:
        have = ".".join(map(str, sys.version_info[:3]))
        raise SetupError(
            f"Python 3.11 or newer is needed, this is {have} ({sys.executable}).\n"
            "Name another one: make PYTHON=/path/to/python3.12 ..."
        )


def fingerprint(files):
    """A hash over the files that decide what gets installed, and over where the project lies."""
    digest = hashlib.sha256(str(ROOT).encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def is_missing_library(error):
    """Whether an import failed on a shared library: libGL.so.1, libgthread-2.0.so.0 and their like."""
    return last_line(error).startswith("ImportError") and ".so" in last_line(error)


def last_line(text):
    return text.strip().splitlines()[-1]


def shown(folder):
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else folder


def say(line):
    print(f"[setup] {line}", flush=True)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=ROOT / ".venv", help="the environment's folder (default: .venv)")
    parser.add_argument(
        "--extras",
        default=[],
        type=lambda text: [extra.strip() for extra in text.split(",") if extra.strip()],
        help="extras of pyproject.toml, separated by commas: demo, test, dev",
    )
    return parser.parse_args(arguments)


def fail_clearly(program):
    """Run `program`; what a user can act on becomes a message instead of a traceback."""
    try:
        program()
    except SetupError as error:
        sys.exit(f"[setup] {error}")


if __name__ == "__main__":
    fail_clearly(main)
