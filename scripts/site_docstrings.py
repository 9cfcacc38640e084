"""Docstrings as the site shows them, a griffe extension (mkdocs.yml): roles become code, examples fenced code."""

import re

import griffe

ROLE = re.compile(r":(?:class|func|mod|meth|data|attr):`~?([^`]+)`")
EXAMPLE = re.compile(r"(?:^[ ]*>>> .*\n?(?:^[ ]*\S.*\n?)*)+", re.MULTILINE)


class Docstrings(griffe.Extension):
    """In our docstrings an example stands where it belongs, and not in a section of its own."""

    def on_instance(self, *, obj, **_):
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    text = ROLE.sub(lambda role: f"`{role[1]}`", text)
    return EXAMPLE.sub(fenced, text)


def fenced(example: re.Match[str]) -> str:
    """Without the directions for doctest."""
    lines = re.sub(r"\s*# doctest: .*", "", example[0]).rstrip("\n")
    indent = re.match(r" *", lines)[0]
    return f"{indent}```pycon\n{lines}\n{indent}```\n"
