"""What pyproject.toml cannot say: README as the package's page, where relative links would lead nowhere."""

import re
from pathlib import Path

from setuptools import setup

HOME = "https://github.com/cam-callbacks/cam-callbacks"


def absolute(link):
    """A link of README, from outside the repository; a picture's to its file."""
    picture, path = link["picture"], link["path"]
    return f"{picture}]({HOME}/{'raw' if picture.startswith('!') else 'blob'}/main/{path})"


README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(
    long_description=re.sub(r"(?P<picture>!?\[[^\]]*)\]\((?!\w+:|#)(?P<path>[^)]+)\)", absolute, README),
    long_description_content_type="text/markdown",
)
