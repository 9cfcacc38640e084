"""Build the sdist and, from it, the wheel; install both where the checkout is not, and use them.

    .venv/bin/python scripts/check_dist.py

Needs the extra `dist`. The fresh environment is made in a temporary folder, through constraints.txt.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setup_env import ROOT, Environment, SetupError, fail_clearly, pip, say

CONSTRAINTS = ROOT / "constraints.txt"

# What a user of the installed package meets first. Run in an empty folder, with no checkout on the path.
USE = """
import sys
from importlib import metadata, resources
from pathlib import Path

import cam_callbacks, cam_engine
from cam_callbacks import CAMCallback, CAMMonitor, ProbeSet
from cam_callbacks.tensorboard_plugin import CAMLoader

assert Path(cam_callbacks.__file__).is_relative_to(sys.prefix), cam_callbacks.__file__
meta = metadata.metadata("cam-callbacks")
assert meta["Version"] == cam_engine.__version__ == cam_callbacks.__version__
assert "](docs/" not in meta.get_payload() and "/raw/main/docs/viewer.png)" in meta.get_payload()
assets = {file.name for file in resources.files("cam_callbacks.compare").joinpath("assets").iterdir()}
assert {"viewer.html", "viewer.css", "viewer.js"} <= assets, assets
assert all((resources.files(name) / "py.typed").is_file() for name in ("cam_engine", "cam_callbacks"))
plugins = {point.name: point.load() for point in metadata.entry_points(group="tensorboard_plugins")}
assert plugins["cam"] is CAMLoader
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where sdist and wheel are put, if all is well")
    parser.add_argument("--tag", metavar="vX.Y.Z", help="the version has to be this one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cam-dist-") as temporary:
        folder = Path(temporary)
        sdist, wheel = build(folder / "dist")
        if given.tag and f"-{given.tag.removeprefix('v')}." not in sdist.name:
            raise SetupError(f"{sdist.name} is not of version {given.tag}; cam_engine.__version__ says it")
        environment = Environment(folder / "venv")
        environment.make()
        environment.install("torch", "torch", constraints=CONSTRAINTS)
        environment.install("the wheel", f"{wheel}[demo]", constraints=CONSTRAINTS)
        environment.settle_cv2()
        use(environment, folder / "with-wheel")
        demo(environment, folder / "with-wheel")
        pip(environment.python, "uninstall", "-y", "cam-callbacks")
        environment.install("the sdist", "--no-deps", str(sdist), constraints=CONSTRAINTS)
        use(environment, folder / "with-sdist")
        if given.keep:
            shutil.copytree(folder / "dist", given.keep, dirs_exist_ok=True)
    say("sdist and wheel work")


def build(folder):
    """(sdist, wheel), the second from the first, and both as the package index wants them."""
    say("building sdist and wheel")
    run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], cwd=ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    print(run([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)], cwd=ROOT).strip())
    return sdist, wheel


def use(environment, folder):
    """Imports, metadata, assets and `doctor`."""
    folder.mkdir()
    run([str(environment.python), "-c", USE], cwd=folder)
    command = environment.python.with_name("cam-callbacks")
    print(run([str(command), "doctor"], cwd=folder).strip().splitlines()[-1])


def demo(environment, folder):
    """A short demo, whose records the TensorBoard tab then shows, asked as a browser would."""
    command = environment.python.with_name("cam-callbacks")
    run([str(command), "demo", "--epochs", "2", "--folder", "demo"], cwd=folder)
    run([str(environment.python), "-c", ASK_THE_TAB, "demo/tensorboard"], cwd=folder)
    say("demo, page and TensorBoard tab work")


# Both runs of the demo are in the tab, asked as a browser would.
ASK_THE_TAB = """
import json, sys, time
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen
from tensorboard import program

page = next(path for path in Path("demo").rglob("*.html") if b"cam-viewer" in path.read_bytes())
assert page.stat().st_size > 100_000, page
board = program.TensorBoard()
board.configure(argv=[None, "--logdir", sys.argv[1], "--port", "0", "--load_fast", "false"])
tab = board.launch().rstrip("/") + "/data/plugin/cam/"
for _ in range(100):
    runs = json.load(urlopen(tab + "runs"))["runs"]
    if len(runs) == 2:
        break
    time.sleep(0.3)
names = [run["name"] for run in runs]
assert sorted(names) == ["clean", "shortcut"], runs
assert b"cam-viewer" in urlopen(tab + "page?" + urlencode({"run": names}, doseq=True)).read()
assert len(json.load(urlopen(tab + "data?" + urlencode({"run": names}, doseq=True)))["runs"]) == 2
"""


def run(command, cwd):
    """What a command prints; where it fails, that is the error."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=clean_environment())
    if done.returncode != 0:
        raise SetupError(f"{' '.join(map(str, command[:4]))} … failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def clean_environment():
    """Nothing of the checkout on Python's path."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


if __name__ == "__main__":
    fail_clearly(main)
