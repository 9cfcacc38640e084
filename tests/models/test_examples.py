"""The examples of what needs ultralytics or transformers give what they say, and every public name there has one."""

import pytest
from docstring_examples import ELSEWHERE, run, site

pytestmark = pytest.mark.models


@pytest.mark.parametrize("package", ELSEWHERE)
def test_every_public_name_has_an_example_that_runs(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in site.packages()[package][1]:
        run(package, name)
