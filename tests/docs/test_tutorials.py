"""Each tutorial runs as it stands and says what its page says that it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
TUTORIALS = sorted(path.stem for path in FOLDER.glob("*.py"))

# What has to hold of the numbers that each prints.
HOLDS = {
    "own_trainer": lambda found: len(found("focus decides")) == 8 and found("accuracy")[-1] > 0.6,
    "find_a_shortcut": lambda found: found("validation accuracy") > [0.9] and found("object_share") < [0.5],
    "compare_and_gate": lambda found: found("exit code") == [0, 1],
    "watch_a_detector": lambda found: found("layercam")[-1] > 3 and found("class right")[-1] > 0.8,
    "after_the_fact": lambda found: found("drift")[0] == 0 and all(found("drift")[1:]) and len(found("drift")) == 6,
    "one_image": lambda found: all(found(name)[0] > 50 for name in ("astronaut", "chelsea", "coffee", "rocket")),
}


@pytest.mark.timeout(900)  # seconds where nothing else runs; a machine may be busy
@pytest.mark.parametrize("name", TUTORIALS)
def test_it_runs(name, tmp_path):
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py"],
        cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=850, check=False, env=os.environ | {"PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]

    def found(word):
        return [float(number) for number in re.findall(rf"{word}\W+(-?\d+\.?\d*)", done.stdout)]

    assert HOLDS[name](found), done.stdout


def cells(source):
    """The code of a script in percent format, a string a cell."""
    parts = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)[1:]
    return [body.strip() for head, body in zip(parts[::2], parts[1::2], strict=True) if "[markdown]" not in head]


@pytest.mark.parametrize("name", TUTORIALS)
def test_its_page_has_its_code_and_its_pictures(name):
    source, page = ((FOLDER / f"{name}.{suffix}").read_text(encoding="utf-8") for suffix in ("py", "md"))
    shown = re.findall(r"```python\n(.*?)\n```\n\n?", page, re.DOTALL)
    assert [code.strip() for code in shown if code in "\n".join(cells(source))] == cells(source), (
        f"make tutorials brings docs/tutorials/{name}.md up to date"
    )
    pictures = re.findall(r"!\[([^\]]+)\]\(([\w-]+\.jpg)\)", page)
    assert sorted(file for _, file in pictures) == sorted(path.name for path in FOLDER.glob(f"{name}-*.jpg"))
    assert all(len(words) > 30 for words, _ in pictures)


def test_every_tutorial_is_in_the_list():
    listed = re.findall(r"\]\((\w+)\.md\)", (FOLDER / "index.md").read_text(encoding="utf-8"))
    assert sorted(listed) == TUTORIALS == sorted(HOLDS)
