"""Deprecation: a warning at the caller's line for two minor versions, then gone."""

import importlib
import pkgutil
import warnings

import pytest

import cam_callbacks
import cam_engine
from cam_engine import deprecation
from cam_engine.deprecation import deprecated, goes_with, overdue, renamed_argument


@pytest.fixture(autouse=True)
def no_trace(monkeypatch):
    monkeypatch.setattr(deprecation, "DEPRECATED", dict(deprecation.DEPRECATED))


def test_a_function_that_goes_works_and_says_what_to_write_at_the_callers_line():
    @deprecated("old_sum", since="0.2", instead="sum")
    def old_sum(values):
        """Adds."""
        return sum(values)

    with pytest.warns(
        DeprecationWarning, match=r"^old_sum is deprecated since 0\.2 and goes with 0\.4: use sum\.$"
    ) as said:
        assert old_sum([1, 2]) == 3
    assert said[0].filename == __file__ and old_sum.__doc__ == "Adds."


def test_an_argument_is_taken_by_its_old_name():
    @renamed_argument("colour", "colormap", since="0.2")
    def draw(image, colormap="turbo"):
        return image, colormap

    with pytest.warns(DeprecationWarning, match=r"draw\(colour=\) is deprecated since 0\.2.*use colormap="):
        assert draw(1, colour="viridis") == (1, "viridis")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw(1) == (1, "turbo") and draw(1, colormap="jet") == (1, "jet")
    with pytest.raises(TypeError, match="both colormap= and its old name colour="):
        draw(1, colormap="jet", colour="viridis")


def test_two_minor_versions_later_it_has_to_be_gone():
    deprecated("old", since="0.2", instead="new")
    assert [goes_with(version) for version in ("0.2", "0.9.3", "1.0")] == ["0.4", "0.11", "1.2"]
    assert "old" not in overdue("0.3.9") and "old" in overdue("0.4.0") and "old" in overdue("1.0")


def test_nothing_of_ours_stays_longer_than_was_said():
    for package in (cam_engine, cam_callbacks):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(("transformers", "__main__")):  # another library, or a program
                continue
            importlib.import_module(module.name)
    assert overdue(cam_engine.__version__) == []
