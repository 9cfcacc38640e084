"""Write docs/works_with.md and its pictures from what the tests of tests/models/test_works_with_*.py ran.

.venv-peers/bin/python scripts/works_with.py            trains anew (minutes), then writes
.venv-peers/bin/python scripts/works_with.py --rows DIR  writes from rows that an earlier run left
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE, PICTURES = ROOT / "docs" / "works_with.md", ROOT / "docs" / "works_with"

# What stands above the rows of a task, in the order of the page; a row belongs to the task that its first words name.
TASKS = {
    "classification": (
        "Classification",
        "The score of the label, one logit or many, with integer, (N, 1), one-hot or float labels. Of one logit the side of the "
        "label is explained, and the prediction is the sign. Without labels the predicted class is explained, and that is said.",
    ),
    "multi-label classification": (
        "Several labels",
        'Of each image the true label that the model is most certain of; `target="all"` is the mean of its true labels. An image '
        "without a label has nothing to explain. Confidences are sigmoids, and no single class is predicted.",
    ),
    "semantic segmentation": (
        "Segmentation",
        "Of each image its largest true class, background (class 0) last, by the mean score inside its true region. That region "
        "is outlined, enrichment is measured on it, and exchange tests ask which class is predicted in it. `target=2` explains "
        "class 2 wherever it truly is. Pixels of class 255 count for nothing.",
    ),
    "regression": (
        "Regression",
        "The predicted value: what raises it is shown. Of several values the first; `target=2` is the third. Captions show the "
        "true and the predicted value.",
    ),
    "detection": (
        "Detection",
        "How surely the true class of each true box is found where it is, level by level ([detection](detection.md)).",
    ),
    "anomaly detection": (
        "Anomaly detection",
        "The anomaly score of an image, on layers of features.",
    ),
    "no class score": (
        "Autoencoders, embeddings, self-supervision",
        "There is no score to explain: methods without gradients show what the encoder's last layer holds, and a line says so. "
        "Labels in the data make no classifier of an encoder: told by the names of the classes, by trained parts that its forward "
        "leaves alone (a decoder, a projection head), by several views of an image, by a returned image. "
        "`target=`, a callable `(outputs) -> Tensor (B,)`, gives a score of your own.",
    ),
}  # fmt: skip

HEAD = """# Works with

Each row is a short training that `make test-models` runs with the real library: its last look is compared with what the model
itself returned for the batch that its validation step saw, and its weights with those of the same training unwatched, bit by bit.
The task is recognised at the first look, from one forward and from what the validation items hold; it is said in one line, stands
in the run's manifest, and `target=` and `output=` go before it. Where it cannot be told, the warning is one sentence that says
what to type. "none" is `CAMCallback()`.

This page is made by `scripts/works_with.py`: shapes of any colour on noise, a few epochs from random weights. The pictures show the
last look.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="folder of an earlier run's rows, in place of new trainings")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.rows or Path(made)
        if given.rows is None:
            tests = sorted(str(path) for path in (ROOT / "tests" / "models").glob("test_works_with_*.py"))
            subprocess.run(
                [sys.executable, "-m", "pytest", "-q", *tests],
                cwd=ROOT,
                env=os.environ | {"WORKS_WITH": str(folder)},
                check=True,
            )
        rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        PICTURES.mkdir(exist_ok=True)
        for row in rows:
            shutil.copy(folder / row["picture"], PICTURES)
    PAGE.write_text(page(rows))


def page(rows: list[dict[str, str]]) -> str:
    """The page's Markdown."""
    parts = [HEAD]
    for start, (title, words) in TASKS.items():
        own = [row for row in rows if row["words"].startswith(start)]
        if not own:
            continue
        parts.append(f"## {title}\n\n{words}\n\n| library | what was trained | arguments |\n|---|---|---|")
        parts += [f"| {row['library']} | {row['task']} | {row['arguments'] or 'none'} |" for row in own]
        parts += [f"\n![{row['library']}: {row['task'].replace('`', '')}](works_with/{row['picture']})" for row in own]
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
