"""docs/index.md leads to every page, and no link in a page leads nowhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("viewer/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def linked(page: Path) -> list[str]:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [link for link in LINK.findall(prose) if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_index_lists_every_page_once_and_says_what_it_answers():
    lines = [
        line for line in (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines() if LINK.search(line)
    ]
    listed = [link for line in lines for link in LINK.findall(line) if re.fullmatch(r"\w+\.md", link)]
    assert sorted(listed) == sorted(page.name for page in ROOT.glob("docs/*.md") if page.name != "index.md")
    assert all(re.fullmatch(r"\d\. \[[A-Z][\w -]+\]\([\w./]+\): .{20,}", line) for line in lines if line[0].isdigit())


def test_the_readme_leads_to_the_index():
    assert "docs/index.md" in linked(ROOT / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    for link in linked(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}, and {target.name} has no such heading"
