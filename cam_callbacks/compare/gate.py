"""Conditions under which a comparison fails, so that a CI job can gate a model.

    condition  = comparison { "or" comparison }
    comparison = sum ("<" | "<=" | ">" | ">=") sum
    sum        = value { ("+" | "-") value }
    value      = number | "baseline" | metric | function "(" metric ")"
    function   = "baseline" | "best" | "mean" | "median" | "worst_tenth" | "worst_class"
    metric     = name { "/" name } | a name in quotes

A metric is ``on_target_enrichment/gradcam``, with ``/<layer>`` where several layers are tracked, or a number that the trainer
logged, such as ``val_acc``; it stands for its value at the run's last look. ``baseline`` alone is the same number of the
first run, for a comparison with one metric. ``best`` is over all looks; ``median``, ``worst_tenth`` and ``worst_class`` are
over the probe images of the last look. The text is parsed here and never evaluated as code.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

FUNCTIONS = ("baseline", "best", "mean", "median", "worst_tenth", "worst_class")
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_TERM = re.compile(
    r"\s*(?P<sign>[-+]?)\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])"
    rf"|(?:(?P<function>{'|'.join(FUNCTIONS)})\s*\(\s*)?"
    r"(?P<metric>(?!(?:or|and)\b)[A-Za-z_]\w*(?:/[\w.]+)*|'[^']+'|\"[^\"]+\")(?(function)\s*\)))"
)
_COMPARISON, _OR = re.compile(r"\s*(<=|>=|<|>)"), re.compile(r"\s*or\b")

Lookup = Callable[[str, str], float]
"""``lookup(function, metric)``: the value of one run, or of the first for "baseline"; NaN where it is undefined."""


class GateError(ValueError):
    """A condition that cannot be read, or asks for a number that is not there or must not be compared.

    >>> from cam_callbacks.compare import GateError, compare_runs
    >>> try:
    ...     compare_runs("runs/one").judge("cam/entropi/gradcam > 1")
    ... except GateError as error:
    ...     print(str(error).splitlines()[0][:60])
    'one' has no metric 'cam/entropi/gradcam'; nearest: entropy/
    """


@dataclass(frozen=True)
class Term:
    """A part of a sum: ``factor``, a constant where there is no metric, times a function of a metric."""

    factor: float
    function: str = ""
    metric: str = ""

    def value(self, lookup: Lookup) -> float:
        return self.factor * lookup(self.function, self.metric) if self.metric else self.factor


@dataclass(frozen=True)
class Comparison:
    """Two sums, and one of ``<``, ``<=``, ``>``, ``>=`` between them."""

    left: tuple[Term, ...]
    sign: str
    right: tuple[Term, ...]

    def holds(self, lookup: Lookup) -> bool:
        a, b = (reduce(operator.add, [term.value(lookup) for term in side]) for side in (self.left, self.right))
        return math.isnan(a) or math.isnan(b) or _COMPARE[self.sign](a, b)


@dataclass(frozen=True)
class Gate:
    """A condition, parsed. ``metrics``: the names in it. ``uses_baseline``: whether it compares with the first run."""

    text: str
    comparisons: tuple[Comparison, ...]
    metrics: tuple[str, ...]
    uses_baseline: bool

    def holds(self, lookup: Lookup) -> bool:
        """Is the condition true? One with an undefined number is true as well: what cannot be judged must not pass."""
        return max(comparison.holds(lookup) for comparison in self.comparisons)  # all are asked: a wrong name is said


def parse_gate(text: str) -> Gate:
    """Parse a condition.

    Raises:
        GateError: Says where it stops being one.

    >>> gate = parse_gate("val_acc < 0.9 or on_target_enrichment/gradcam < baseline - 0.2")
    >>> gate.metrics, gate.uses_baseline
    (('val_acc', 'on_target_enrichment/gradcam'), True)
    """
    comparison, at = _comparison(text, 0)
    comparisons = [comparison]
    while word := _OR.match(text, at):
        comparison, at = _comparison(text, word.end())
        comparisons.append(comparison)
    if text[at:].strip():
        raise _error(text, at, "expected or, + or -, or the end")
    terms = [term for one in comparisons for term in (*one.left, *one.right)]
    metrics = tuple(dict.fromkeys(term.metric for term in terms if term.metric))
    return Gate(text, tuple(comparisons), metrics, any(term.function == "baseline" for term in terms))


def _comparison(text: str, at: int) -> tuple[Comparison, int]:
    """A comparison that begins at a place in the text, and where it ends."""
    left, at = _sum(text, at)
    sign = _COMPARISON.match(text, at)
    if sign is None:
        raise _error(text, at, "expected <, <=, > or >=")
    right, at = _sum(text, sign.end())
    metrics = {term.metric for term in (*left, *right) if term.metric}

    def with_metric(term: Term) -> Term:
        if term.function != "baseline" or term.metric:
            return term
        if len(metrics) != 1:
            raise GateError(f"{text!r} does not say whose baseline is meant: baseline(on_target_enrichment/gradcam).")
        return replace(term, metric=min(metrics))

    return Comparison(tuple(map(with_metric, left)), sign[1], tuple(map(with_metric, right))), at


def _sum(text: str, at: int) -> tuple[tuple[Term, ...], int]:
    terms: list[Term] = []
    while (match := _TERM.match(text, at)) and (match["sign"] or not terms):
        factor = -1.0 if match["sign"] == "-" else 1.0
        function, name = match["function"], match["metric"]
        if match["number"]:
            terms.append(Term(factor * float(match["number"])))
        elif name == "baseline" and not function:
            terms.append(Term(factor, "baseline"))
        else:
            terms.append(Term(factor, "last" if function in (None, "mean") else function, name.strip("'\"")))
        at = match.end()
    if not terms:
        raise _error(text, at, f"expected a number, a metric, baseline, or {', '.join(FUNCTIONS)} of a metric")
    return tuple(terms), at


def _error(text: str, at: int, message: str) -> GateError:
    return GateError(f"the condition {text!r} is not understood at {text[at:].strip()[:30]!r}: {message}.")
