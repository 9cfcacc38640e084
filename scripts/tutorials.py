"""Run the tutorials and write their pages: docs/tutorials/NAME.py → NAME.md, with what was printed and drawn.

    python scripts/tutorials.py [NAME …]

The sources are scripts in percent format: tests run them as they are, and the site offers each as a notebook. Needs the
extra `docs`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import jupytext
import nbclient
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
ABOUT = "*The source: [{name}.py]({name}.py); the site has it as a notebook, too.*\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in FOLDER.glob("*.py")))
    os.environ |= {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    for name in parser.parse_args().names:
        began = time.perf_counter()
        notebook = jupytext.read(FOLDER / f"{name}.py")
        with tempfile.TemporaryDirectory() as folder:
            nbclient.NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
        seconds = time.perf_counter() - began
        for old in FOLDER.glob(f"{name}-*.jpg"):
            old.unlink()
        (FOLDER / f"{name}.md").write_text(page(name, notebook), encoding="utf-8")
        print(f"{name}: {seconds:.0f} s", flush=True)


def page(name: str, notebook) -> str:
    """The cells one after the other, each with its output; pictures become files."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        printed = "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == "stdout")
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
        for out in cell.outputs:
            if picture := out.get("data", {}).get("image/png"):
                file = FOLDER / f"{name}-{sum('](' + name in part for part in parts) + 1}.jpg"
                Image.open(BytesIO(b64decode(picture))).convert("RGB").save(file, quality=88)
                parts.append(f"![{cell.metadata['alt']}]({file.name})")
    title, _, rest = "\n\n".join(parts).partition("\n")
    about = ABOUT.format(name=name)
    return f"{title}\n\n{about}\n{rest.strip()}\n"


if __name__ == "__main__":
    main()
