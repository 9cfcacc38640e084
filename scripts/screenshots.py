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
NUMBERS = "scrollTo(0, document.querySelector('.beside').getBoundingClientRect().top + scrollY - 60)"  # below the bar that stays
BOXES = "document.querySelector('.sharing button').click()"
# name → width, height, colours, what the address says, what is done first
VIEWS = {
    "viewer": (1280, 800, "light", "", ""),
    "viewer-images": (1500, 1000, "light", "", IMAGES),
    "viewer-summary": (1500, 640, "light", "", NUMBERS),
    "viewer-curves": (1500, 900, "light", "lines=all", CURVES),
    "viewer-dark": (1500, 1000, "dark", "", IMAGES),
    "viewer-narrow": (650, 1000, "light", "", ""),
    "viewer-difference": (1500, 1000, "light", "show=run:0&sort=runs", IMAGES),
    "viewer-detail": (1500, 1000, "light", "detail=11", ""),
    "viewer-boxes": (1280, 760, "light", "", BOXES),
}
# An annotated panel: what stands where in it, as (share of width, share of height) → words at the right.
ANNOTATE = """() => {
    const card = document.querySelector('.card:nth-child(2)');
    const panel = card.querySelectorAll('.panel')[1];
    const words = [
        ['.about', .5, 'class and name of the image'],
        ['canvas', .07, 'dashed: what is suspected; hot: the map is high here'],
        ['canvas', .3, 'cold: the photograph itself'],
        ['canvas', .62, 'solid: where it should look'],
        ['.said', .5, 'what the model calls it, how sure; ✗ where that is wrong'],
        ['.figures', .5, 'share of the focus on target and suspect, in times of chance'],
    ];
    const board = document.createElement('div');
    board.id = 'board';
    const whole = document.createElement('div');
    whole.className = 'card';
    whole.append(card.querySelector('.about').cloneNode(true), panel.cloneNode(true));
    whole.querySelector('canvas').replaceWith((() => {
        const copy = document.createElement('canvas'), own = panel.querySelector('canvas');
        Object.assign(copy, { width: own.width, height: own.height });
        copy.getContext('2d').drawImage(own, 0, 0);
        return copy;
    })());
    board.append(whole);
    document.body.replaceChildren(board);
    Object.assign(board.style, { position: 'relative', width: '860px', padding: '24px', background: 'var(--paper)' });
    Object.assign(whole.style, { width: '320px' });
    const from = board.getBoundingClientRect();
    words.forEach(([selector, share, text], i) => {
        const box = whole.querySelector(selector).getBoundingClientRect();
        const y = box.top - from.top + share * box.height;
        const line = document.createElement('div');
        const label = document.createElement('div');
        label.textContent = text;
        Object.assign(line.style, { position: 'absolute', left: '350px', top: `${y}px`, width: '40px',
            borderTop: '1.5px solid var(--muted)' });
        Object.assign(label.style, { position: 'absolute', left: '400px', top: `${y - 11}px`, fontSize: '15px' });
        board.append(line, label);
    });
}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)

        def opened(width, height, scheme, view):
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(f"{options.page.resolve().as_uri()}#{view}")
            page.wait_for_selector(".cards .panel", state="attached")
            return page

        for name, (width, height, scheme, view, script) in VIEWS.items():
            page = opened(width, height, scheme, view)
            if script:
                page.evaluate(script)
            page.wait_for_timeout(800)
            page.screenshot(path=options.folder / f"{name}.png")
            print(options.folder / f"{name}.png")
            page.close()
        page = opened(1500, 1000, "light", "")
        page.evaluate(IMAGES)
        page.wait_for_timeout(800)
        page.evaluate(ANNOTATE)
        page.locator("#board").screenshot(path=options.folder / "viewer-panel.png")
        print(options.folder / "viewer-panel.png")
        browser.close()


if __name__ == "__main__":
    main()
