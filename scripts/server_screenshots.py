"""Pictures of TensorBoard's tab CAM and MLflow's artifact pane for the docs, taken in Chromium.

.venv/bin/python scripts/server_screenshots.py demo_out docs
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

from cam_callbacks.demo.main import EXPERIMENT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="the folder of a finished `make demo`")
    parser.add_argument("folder", type=Path, help="where tensorboard.png and mlflow.png go")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        with tensorboard(options.demo / "tensorboard") as address:
            page = browser.new_page(viewport={"width": 1500, "height": 950})
            page.goto(f"{address}/#cam")
            first_screen(page, page.frame_locator("iframe[src*='plugin_entry']").frame_locator("iframe"))
            page.screenshot(path=options.folder / "tensorboard.png")
        store = f"sqlite:///{options.demo.resolve()}/mlflow.db"
        client = MlflowClient(store)
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        run = client.search_runs([experiment], "attributes.run_name = 'shortcut'")[0].info.run_id
        with mlflow(store) as address:
            page = browser.new_page(viewport={"width": 1500, "height": 950})
            page.goto(f"{address}/#/experiments/{experiment}/runs/{run}/artifacts/cam_report.html")
            frame = page.frame_locator("iframe")
            frame.locator(".strip").first.wait_for()
            for close in page.get_by_role("button", name="Close").all():  # the assistant's panel
                close.click()
            first_screen(page, frame)
            where = page.get_by_text(re.compile("file://"))  # a folder of this machine
            page.screenshot(path=options.folder / "mlflow.png", mask=[where], mask_color="white")
        browser.close()


def first_screen(page: Page, frame: object) -> None:
    """Wait until the viewer's first screen is drawn."""
    frame.locator(".strip").first.wait_for()
    page.wait_for_timeout(2500)


@contextlib.contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", "0"]
    with running(command) as log:
        yield wait(lambda: re.search(r"at (http://\S+?)/? ", log.read_text()))[1]


@contextlib.contextmanager
def mlflow(store: str, port: int = 5055) -> Iterator[str]:
    address = f"http://127.0.0.1:{port}"
    with running([sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", str(port)]):
        wait(lambda: answers(f"{address}/health"))
        yield address


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.txt")
        with open(log, "w") as output, subprocess.Popen(command, stdout=output, stderr=output, cwd=folder) as process:
            try:
                yield log
            finally:
                process.terminate()


def wait(ready, patience: float = 120):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := ready():
            return found
        time.sleep(0.3)
    sys.exit("the server did not start")


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
