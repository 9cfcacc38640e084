"""A check of the images, before any training, a rival: do their properties go with the class?

Cleanlab Datalab's ``spurious_correlations`` (darkness, blur, information, …): how well one property alone tells the class;
it flags properties whose score is below its own threshold. It needs packages that nothing else here needs, so it has an
environment of its own, made when it is first asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evidence.data import Data
from evidence.plans import Training

ENVIRONMENT = Path(__file__).parents[2] / "build" / "evidence-cleanlab"
PACKAGE = "cleanlab[image]==2.9.0"
IMAGES = 500
LAST = 10**6  # an epoch after any onset
FILE = "image_check.json"

# Runs in that environment: images and labels in, scores out.
SCRIPT = """
import json, sys
import numpy as np
from cleanlab import Datalab
from cleanvision import imagelab
from datasets import Dataset, Image
from PIL import Image as Picture

PROPERTIES = ("dark", "light", "odd_aspect_ratio", "low_information", "odd_size", "grayscale", "blurry")
imagelab.get_max_n_jobs = lambda: 1  # 500 small images are scored sooner than workers are started
file = np.load(sys.argv[1])
columns = {"image": [Picture.fromarray(image) for image in file["images"]], "label": file["labels"].tolist()}
data = Dataset.from_dict(columns).cast_column("image", Image())
lab = Datalab(data, label_name="label", image_key="image", verbosity=0)
lab.find_issues(issue_types={"image_issue_types": {p: {} for p in PROPERTIES}, "spurious_correlations": {}})
found = lab.get_info("spurious_correlations")
table = found["correlations_df"]
scores = dict(zip(table["property"], map(float, table["score"])))
json.dump({"scores": scores, "threshold": found["threshold"]}, open(sys.argv[2], "w"))
"""


def name_of(training: Training) -> str:
    """Trainings of one name have like images: scenes and cue, the network does not matter."""
    cue = "none" if training.cue is None else training.cue
    return f"{training.scenes}-{cue}{100 * training.agreement:.0f}-{training.informs}"


def check(chosen: Sequence[Training], known: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Score 500 training images of each kind among these trainings that is not known yet, one after the other; nothing, and a line
    about it, where the check cannot be installed."""
    kinds = {
        name_of(t): t for t in sorted(chosen, key=lambda t: t.id) if t.network != "mobilenet"
    }  # it has fewer images
    todo = {name: training for name, training in kinds.items() if name not in known}
    if not todo or (python := _environment()) is None:
        return
    for name, training in todo.items():
        yield {name: _scored(python, training)}


def _scored(python: Path, training: Training) -> dict[str, Any]:
    data = Data(training)
    pictures = (255 * data.pictures(LAST)[:IMAGES].transpose(0, 2, 3, 1)).round().astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "images.npz"), Path(folder, "scores.json")
        np.savez(given, images=pictures, labels=data.labels(LAST)[:IMAGES])
        ran = subprocess.run([python, "-c", SCRIPT, given, answer], capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError(f"the image check failed:\n{ran.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def is_flagged(found: Mapping[str, Any]) -> bool:
    """Does the check name any property?"""
    return min(found["scores"].values()) < found["threshold"]


def _environment() -> Path | None:
    """The interpreter of the check's environment; None where it cannot be made."""
    python = ENVIRONMENT / "bin" / "python"
    if subprocess.run([python, "-c", "import cleanlab"], check=False).returncode == 0 if python.exists() else False:
        return python
    print(f"installing {PACKAGE} into {ENVIRONMENT}", file=sys.stderr)
    try:
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PACKAGE], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"The image check is left out: {PACKAGE} cannot be installed ({error}).", file=sys.stderr)
        return None
    return python
