"""Conditions under which a comparison fails, so that a CI job can gate a model.

    condition  = all { "or" all }
    all        = comparison { "and" comparison }
    comparison = sum ("<" | "<=" | ">" | ">=") sum
    sum        = product { ("+" | "-") product }
    product    = value { "*" value }
    value      = number | "baseline" | metric | function "(" metric ")" | "-" value | "(" sum ")"
    function   = "baseline" | "best" | "mean" | "median" | "worst_tenth" | "worst_class"
    metric     = name { "/" name } | a name in quotes

A metric is ``on_target_enrichment/gradcam``, with ``/<layer>`` where several layers are tracked, or a number that the trainer
logged, such as ``val_acc``; it stands for its value at the run's last look. ``baseline`` alone is the same number of the
first run, for a condition with one metric. ``best`` is over all looks; ``median``, ``worst_tenth`` and ``worst_class`` are
over the probe images of the last look. The text is parsed here and never evaluated as code.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field

FUNCTIONS = ("baseline", "best", "mean", "median", "worst_tenth", "worst_class")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])|(?P<name>[A-Za-z_]\w*(?:/[\w.]+)*)"
    r"|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|(?P<sign><=|>=|[-<>+*()]))"
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[float, float], float]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_DEEPEST = 50

Lookup = Callable[[str, str], float]
"""``lookup(function, metric)``: the value of one run, or of the first for "baseline"; NaN where it is undefined."""


class GateError(ValueError):
    """A condition that cannot be read, or asks for a number that is not there or must not be compared."""


@dataclass(frozen=True)
class Gate:
    """A condition, parsed. ``metrics``: the names in it. ``uses_baseline``: whether it compares with the first run."""

    text: str
    metrics: tuple[str, ...]
    uses_baseline: bool
    _holds: Callable[[Lookup], bool] = field(repr=False)

    def holds(self, lookup: Lookup) -> bool:
        """Is the condition true? One with an undefined number is true as well: what cannot be judged must not pass."""
        return self._holds(lookup)


def parse_gate(text: str) -> Gate:
    """Parse a condition.

    Raises:
        GateError: Says where it stops being one.

    >>> gate = parse_gate("val_acc < 0.9 or on_target_enrichment/gradcam < baseline - 0.2")
    >>> gate.metrics, gate.uses_baseline
    (('val_acc', 'on_target_enrichment/gradcam'), True)
    """
    parser = _Parser(text)
    holds = parser.condition()
    parser.end()
    return Gate(text, tuple(dict.fromkeys(parser.metrics)), parser.uses_baseline, holds)


class _Parser:
    """One method for each rule of the grammar; each returns a function of a lookup."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.place = 0
        self.depth = 0
        self.metrics: list[str] = []
        self.uses_baseline = False

    def condition(self) -> Callable[[Lookup], bool]:
        parts = [self.all()]
        while self.take("name", "or"):
            parts.append(self.all())
        return lambda lookup: max(part(lookup) for part in parts)  # each is asked: a wrong name is always said

    def all(self) -> Callable[[Lookup], bool]:
        parts = [self.comparison()]
        while self.take("name", "and"):
            parts.append(self.comparison())
        return lambda lookup: min(part(lookup) for part in parts)

    def comparison(self) -> Callable[[Lookup], bool]:
        left = self.sum()
        sign = self.take("sign", *_COMPARE)
        if sign is None:
            raise self.error("expected <, <=, > or >=")
        right = self.sum()

        def holds(lookup: Lookup) -> bool:
            a, b = left(lookup), right(lookup)
            return math.isnan(a) or math.isnan(b) or _COMPARE[sign](a, b)

        return holds

    def sum(self) -> Callable[[Lookup], float]:
        return self.chain(self.product, "+", "-")

    def product(self) -> Callable[[Lookup], float]:
        return self.chain(self.value, "*")

    def chain(self, part: Callable[[], Callable[[Lookup], float]], *signs: str) -> Callable[[Lookup], float]:
        first, rest = part(), []
        while sign := self.take("sign", *signs):
            rest.append((_ARITHMETIC[sign], part()))

        def value(lookup: Lookup) -> float:
            total = first(lookup)
            for apply, operand in rest:
                total = apply(total, operand(lookup))
            return total

        return value

    def value(self) -> Callable[[Lookup], float]:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.error("nested too deeply")
        try:
            return self._value()
        finally:
            self.depth -= 1

    def _value(self) -> Callable[[Lookup], float]:
        if (number := self.take("number")) is not None:
            constant = float(number)
            return lambda lookup: constant
        if self.take("sign", "-"):
            negated = self.value()
            return lambda lookup: -negated(lookup)
        if self.take("sign", "("):
            inner = self.sum()
            self.close()
            return inner
        if (quoted := self.take("quoted")) is not None:
            return self.metric("last", quoted)
        name = self.take("name")
        if name is None or name in ("and", "or"):
            raise self.error("expected a number, a metric, baseline or (", back=name is not None)
        if self.take("sign", "("):
            return self.function(name)
        if name != "baseline":
            return self.metric("last", name)
        self.uses_baseline = True

        def baseline(lookup: Lookup) -> float:
            names = set(self.metrics)
            if len(names) != 1:
                raise GateError(
                    f"{self.text!r} has {len(names)} metrics; say whose baseline is meant: baseline(on_target_enrichment/gradcam)."
                )
            return lookup("baseline", names.pop())

        return baseline

    def function(self, name: str) -> Callable[[Lookup], float]:
        if name not in FUNCTIONS:
            raise self.error(f"no function {name!r}; there are {', '.join(FUNCTIONS)}", back=True)
        metric = self.take("name") or self.take("quoted")
        if metric is None:
            raise self.error(f"{name}( takes the name of a metric")
        self.close()
        self.uses_baseline |= name == "baseline"
        return self.metric("last" if name == "mean" else name, metric)

    def metric(self, function: str, name: str) -> Callable[[Lookup], float]:
        self.metrics.append(name)
        return lambda lookup: lookup(function, name)

    def take(self, kind: str, *wanted: str) -> str | None:
        """The next token, if it is of this kind and one of those wanted."""
        if self.place == len(self.tokens):
            return None
        found, text, _ = self.tokens[self.place]
        if found != kind or (wanted and text not in wanted):
            return None
        self.place += 1
        return text

    def close(self) -> None:
        if not self.take("sign", ")"):
            raise self.error("expected )")

    def end(self) -> None:
        if self.place < len(self.tokens):
            raise self.error("expected and, or, or the end")

    def error(self, message: str, back: bool = False) -> GateError:
        place = self.place - back
        at = self.tokens[place][2] if place < len(self.tokens) else len(self.text)
        return GateError(f"the condition {self.text!r} is not understood at {self.text[at:][:30]!r}: {message}.")


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """(kind, text, where) of each word of a condition."""
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise GateError(f"the condition {text!r} is not understood at {text[at:].strip()[:30]!r}.")
        kind = match.lastgroup or ""
        start = match.start(kind) - (kind in ("single", "double"))
        found.append(("quoted" if kind in ("single", "double") else kind, match[kind], start))
        at = match.end()
    return found
