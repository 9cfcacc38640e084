"""`make test` with each Python that is supported, in .venv-3.11, .venv-3.12 …, as far as it can be had here.

    python3 scripts/test_with_pythons.py [VERSION …]

One is left out, and that is said, where no such interpreter is installed, or where the package index has only a torch with
CUDA for it, which is gigabytes.
"""

import argparse
import json
import subprocess
import sys

from setup_bounds import pinned
from setup_env import ROOT, SetupError, fail_clearly, say

VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    failed = [version for version in parser.parse_args().versions if not works(version)]
    if failed:
        raise SetupError(f"the tests fail with Python {', '.join(failed)}")


def works(version):
    """Whether the tests pass; True where they cannot be run."""
    python = f"python{version}"
    reason = missing_python(python) or missing_torch(version)
    if reason:
        say(f"Python {version} left out: {reason}")
        return True
    say(f"Python {version}")
    command = ["make", "--no-print-directory", "test", f"PYTHON={python}", f"VENV=.venv-{version}"]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def missing_python(python):
    try:
        done = subprocess.run([python, "-c", "import venv"], capture_output=True)
    except FileNotFoundError:
        return f"no {python} here"
    return None if done.returncode == 0 else f"{python} does not start here"


def missing_torch(version):
    """Why torch as pinned cannot be installed for that Python; asked of pip, which downloads nothing for it."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--no-deps",
        "--ignore-installed",
        "--report",
        "-",
    ]
    command += [
        "--python-version",
        version,
        "--only-binary",
        ":all:",
        "--target",
        "unused",
        f"torch=={pinned('torch')}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        return f"no torch {pinned('torch')} for it"
    needs = json.loads(done.stdout)["install"][0]["metadata"].get("requires_dist", [])
    cuda = sys.platform == "linux" and any(line.startswith(("cuda", "nvidia")) for line in needs)
    return "torch comes only with CUDA for it here" if cuda else None


if __name__ == "__main__":
    fail_clearly(main)
