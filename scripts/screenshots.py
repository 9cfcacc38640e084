"""Pictures of the comparison page for the docs, taken in Chromium.

    .venv/bin/python scripts/screenshots.py demo_out/compare.html docs

Needs the extra `browser` and a Chromium (make test-browser sees to both).
"""

import argparse
import shutil
from pathlib import Path

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
IMAGES = "document.querySelector('section.images').scrollIntoView()"
CURVES = "document.querySelector('section.curves').scrollIntoView()"
# name → width, height, colours, what the address says, what is done first
VIEWS = {
    "viewer": (1500, 1000, "light", "", IMAGES),
    "viewer-summary": (1500, 900, "light", "", ""),
    "viewer-curves": (1500, 900, "light", "lines=all", CURVES),
    "viewer-dark": (1500, 1000, "dark", "sort=target", IMAGES),
    "viewer-narrow": (650, 1000, "light", "sort=nuisance", IMAGES),
    "viewer-difference": (1500, 1000, "light", "show=run:0&sort=runs", IMAGES),
    "viewer-detail": (1500, 1150, "light", "detail=11", ""),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for name, (width, height, scheme, view, script) in VIEWS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(f"{options.page.resolve().as_uri()}#{view}")
            page.wait_for_selector(".cards .panel")
            if script:
                page.evaluate(script)
            page.wait_for_timeout(800)
            page.screenshot(path=options.folder / f"{name}.png")
            print(options.folder / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
