"""Make an environment with the lowest version that pyproject.toml allows of each direct dependency, or with the newest.

    python3 scripts/setup_bounds.py .venv-oldest --resolution lowest-direct --constraints constraints-oldest.txt
    python3 scripts/setup_bounds.py .venv-newest --resolution highest --prerelease allow --constraints constraints-newest.txt

uv resolves, for pip knows no lowest. torch comes first, from pip and in the version of constraints.txt, and stays: the package
index has no CPU build of another one, and with CUDA it is gigabytes. `--torch 2.6.0` tries one where there is a build.
"""

import argparse
import itertools
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

from setup_env import ROOT, Environment, SetupError, fail_clearly, fingerprint, need_new_enough_python, say, shown


def main():
    given = parse()
    need_new_enough_python()
    environment = Environment(given.folder)
    inputs = [ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__)]
    inputs += [given.constraints] if given.constraints else []
    stamp = {"inputs": fingerprint(inputs), "how": [given.resolution, given.prerelease, given.torch]}
    if environment.read_stamp() == stamp and environment.python.exists():
        return
    shutil.rmtree(environment.folder, ignore_errors=True)  # what is installed would be kept
    environment.make()
    pin = environment.folder / "pins.txt"
    others = given.constraints.read_text() if given.constraints else ""
    pin.write_text(f"torch=={given.torch or pinned('torch')}\n{others}")
    environment.install("torch and uv", "torch", "uv", constraints=pin)
    say(f"installing the project and what it needs: {given.resolution}, pre-releases: {given.prerelease}")
    how = ["--resolution", given.resolution, "--prerelease", given.prerelease, "-c", str(pin)]
    installed = resolve(environment, [*how, "-e", f"{ROOT}[test]"])
    say(", ".join(f"{name} {installed[name]}" for name in sorted(direct() & installed.keys())))
    environment.settle_cv2()
    environment.write_stamp(stamp)
    say(f"{shown(environment.folder)} is ready")


def pinned(name):
    """The version of a distribution in constraints.txt."""
    return re.search(rf"^{name}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def resolve(environment, arguments):
    """`uv pip install`, and what that installed: {name: version}."""
    uv = environment.python.with_name("uv")
    command = [uv, "pip", "install", "--python", environment.python, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise SetupError(f"uv pip install failed:\n{done.stderr[-4000:]}")
    return dict(re.findall(r"^ \+ (\S+)==(\S+)$", done.stderr, re.MULTILINE))


def direct():
    """The names of pyproject.toml's dependencies, those of its extras too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    return {re.match(r"[\w.-]+", line)[0].lower() for line in lines}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--resolution", choices=["lowest-direct", "highest"], required=True)
    parser.add_argument(
        "--prerelease", choices=["allow", "if-necessary-or-explicit"], default="if-necessary-or-explicit"
    )
    parser.add_argument("--constraints", type=Path, metavar="FILE", help="for dependencies of dependencies")
    parser.add_argument("--torch", metavar="VERSION", help="default: that of constraints.txt")
    return parser.parse_args()


if __name__ == "__main__":
    fail_clearly(main)
