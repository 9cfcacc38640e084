"""What goes away warns first, for two minor versions, and says what to write instead."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

KEPT_FOR = 2  # minor versions that a deprecated name still works in, counted from the one that says so first

DEPRECATED: dict[str, str] = {}  # what is deprecated, and since which version; the tests see that none stays too long


def deprecated(what: str, *, since: str, instead: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Mark a function or method that will go; each call warns.

    >>> @deprecated("double", since="0.2", instead="twice")
    ... def double(x):
    ...     return 2 * x
    >>> double(2)  # double is deprecated since 0.2 and goes with 0.4: use twice.  # doctest: +SKIP
    4
    """
    DEPRECATED[what] = since

    def mark(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> T:
            warn(what, since, instead)
            return function(*args, **kwargs)

        return warned

    return mark


def renamed_argument(old: str, new: str, *, since: str) -> Callable[[Callable[P, T]], Callable[..., T]]:
    """Take an argument by its old name too, with a warning.

    >>> @renamed_argument("colour", "colormap", since="0.2")
    ... def draw(colormap="turbo"):
    ...     return colormap
    >>> draw(colour="viridis")  # doctest: +SKIP
    'viridis'

    Raises:
        TypeError: Both are given.
    """

    def mark(function: Callable[P, T]) -> Callable[..., T]:
        name = f"{function.__name__}({old}=)"
        DEPRECATED[name] = since

        @functools.wraps(function)
        def warned(*args: Any, **kwargs: Any) -> T:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{function.__name__}() got both {new}= and its old name {old}=.")
                warn(name, since, f"{new}=")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return warned

    return mark


def warn(what: str, since: str, instead: str) -> None:
    """Warn where our caller's caller stands."""
    message = f"{what} is deprecated since {since} and goes with {goes_with(since)}: use {instead}."
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def goes_with(since: str) -> str:
    """The version that no longer has what was deprecated in ``since``.

    >>> goes_with("0.2"), goes_with("1.4.1")
    ('0.4', '1.6')
    """
    major, minor = (int(part) for part in since.split(".")[:2])
    return f"{major}.{minor + KEPT_FOR}"


def overdue(version: str) -> list[str]:
    """What should be gone by ``version``."""
    now = tuple(int(part) for part in version.split(".")[:2])
    return [what for what, since in DEPRECATED.items() if now >= tuple(map(int, goes_with(since).split(".")))]
