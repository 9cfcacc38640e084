"""The house, drawn from the imports: a storey stands only on those below it. A page of the site (site_pages.py).

python scripts/house.py
"""

from __future__ import annotations

import ast
import graphlib
import html
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cam_engine", "cam_callbacks")

HEAD = """# The house

Drawn from the imports of both packages when this site is built. A room is a module, or a folder of them; it imports
only from storeys below its own, at the time when it is imported itself. Imports inside of functions are left out:
with these, a command or a callback fetches what it needs when it needs it. `make check` and
`tests/engine/test_imports.py` hold what must not be imported.
"""


def imports() -> dict[str, set[str]]:
    """What each room imports from other rooms, both by name."""
    files = {module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    found: dict[str, set[str]] = {room_of(name): set() for name in files}
    for name, path in files.items():
        for target in imported(path, files):
            if room_of(target) != room_of(name):
                found[room_of(name)].add(room_of(target))
    for package in PACKAGES:  # what these import on demand is no storey of theirs
        found.pop(package, None)
    return {room: {target for target in targets if target in found} for room, targets in found.items()}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imported(path: Path, files: dict[str, Path]) -> Iterator[str]:
    """Modules of ours that a file imports when it is imported."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in files else node.module


def storeys(found: dict[str, set[str]]) -> list[list[tuple[str, ...]]]:
    """Rooms from the ground up; rooms that import each other are one."""
    rooms = {room: (room,) for room in found}
    while True:
        graph = {rooms[r]: {rooms[t] for t in targets} - {rooms[r]} for r, targets in merged(found, rooms).items()}
        try:
            order = list(graphlib.TopologicalSorter(graph).static_order())
            break
        except graphlib.CycleError as error:
            together = tuple(sorted({room for group in error.args[1] for room in group}))
            rooms.update(dict.fromkeys(together, together))
    height: dict[tuple[str, ...], int] = {}
    for room in order:
        height[room] = 1 + max((height[target] for target in graph[room]), default=-1)
    return [sorted(room for room in order if height[room] == level) for level in range(max(height.values()) + 1)]


def merged(found: dict[str, set[str]], rooms: dict[str, tuple[str, ...]]) -> dict[str, set[str]]:
    """What the first of each group imports: all that the group does."""
    return {group[0]: set().union(*(found[room] for room in group)) for group in set(rooms.values())}


def page() -> str:
    """The page, as Markdown with the drawing in HTML."""
    found = imports()
    lines = [HEAD, '<div class="house" role="img" aria-label="Storeys of rooms; the table below says the same">']
    for storey in reversed(storeys(found)):
        lines.append('<div class="storey">')
        for group in storey:
            lines.append("".join(door(room) for room in group))
        lines.append("</div>")
    lines += ["</div>", "", '<p class="house-key"><span class="cam_engine">cam_engine</span> '
              '<span class="cam_callbacks">cam_callbacks</span></p>', "", "## Rooms", ""]  # fmt: skip
    for package in PACKAGES:
        lines += [f"### {package}", "", "| room | what is in it | imports |", "|---|---|---|"]
        for room in sorted(room for room in found if room.startswith(f"{package}.")):
            targets = ", ".join(f"`{target.removeprefix(f'{package}.')}`" for target in sorted(found[room]))
            lines.append(f'| <span id="{room}"></span>`{short(room)}` | {summary(room)} | {targets or "nothing"} |')
        lines.append("")
    return "\n".join(lines)


def door(room: str) -> str:
    about = html.escape(summary(room), quote=True)
    return f'<a class="{room.split(".")[0]}" href="#{room}" title="{about}">{short(room)}</a>'


def short(room: str) -> str:
    return room.partition(".")[2]


def summary(room: str) -> str:
    """The first sentence of its docstring."""
    path = ROOT / room.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    for level, storey in reversed(list(enumerate(storeys(imports())))):
        print(f"{level:2}  {', '.join(' + '.join(group) for group in storey)}")
