"""A real Chromium, real records, and pages made of them."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cam_callbacks.compare import load_run, write_page

sys.path.insert(0, str(Path(__file__).parent))
from recording import record
from script_coverage import counted

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "no Chromium found; make test-browser installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """``open_page(path, width=1500, dark=False, hash="")``: the page, in a window of that size.

    Afterwards: it has logged no error and warning, raised nothing and asked for nothing but itself.
    """
    contexts, trouble, counts = [], [], []

    def open_it(path: Path, width: int = 1500, height: int = 1000, dark: bool = False, hash: str = ""):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        address = path.as_uri()
        page.on("console", lambda m: trouble.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda r: (
                None
                if r.url.startswith(("data:", "blob:")) or r.url.split("#")[0] == address
                else trouble.append(r.url)
            ),
        )
        counts.append(counted(page))
        page.goto(address + hash)
        page.wait_for_selector(".cards .panel")
        return page

    yield open_it
    for write in counts:
        write()
    for context in contexts:
        context.close()
    assert trouble == []


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Records of two short trainings that differ in the colour of a tag."""
    torch.set_num_threads(2)
    root = tmp_path_factory.mktemp("records")
    return [record(root / name, name, cue) for name, cue in (("clean", "random"), ("shortcut", "class"))]


@pytest.fixture(scope="session")
def runs(folders):
    return [load_run(folder) for folder in folders]


@pytest.fixture(scope="session")
def two(runs, tmp_path_factory):
    """The page of both."""
    return write_page(runs, tmp_path_factory.mktemp("pages") / "two.html")


@pytest.fixture(scope="session")
def gapped(runs, tmp_path_factory):
    """The page of both, where the second has no look at epoch 2 and ends before the first."""
    short = replace(runs[1], records=[r for r in runs[1].records if r.epoch not in (2, 5)])
    return write_page([runs[0], short], tmp_path_factory.mktemp("pages") / "gapped.html")
