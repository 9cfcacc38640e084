import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cam_callbacks.compare import GateError, compare_runs
from cam_callbacks.compare.gate import parse_gate
from cam_callbacks.records import RecordStore

VALUES = {"a": 1.0, "b/c": 2.0, "odd-name": 3.0, "nan": math.nan}


def lookup(function, metric):
    return VALUES[metric] + {"last": 0, "baseline": 10, "best": 100}.get(function, 1000)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a < 2", True),
        ("a > 2", False),
        ("a <= 1", True),
        ("a >= 1.5e0", False),
        ("a < baseline - 0.2", True),
        ("a < baseline - 10", False),
        ("b/c + a - 1 >= 2", True),
        ("0.5 - b/c - a > -2.5", False),
        ("-a < -0.5", True),
        ("best(b/c) > 101", True),
        ("b/c > baseline(a)", False),
        ("b/c - baseline(b/c) <= -10", True),
        ("a > 5 or b/c > 3", False),
        ("a > 5 or b/c > 3 or a < 5", True),
        ("a > 5 or b/c < baseline", True),
        ("'odd-name' < 3.5", True),
        ("nan < 0", True),  # what cannot be judged does not pass
        ("a-0.5 < .6", True),
    ],
)
def test_conditions(text, holds):
    assert parse_gate(text).holds(lookup) is holds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a number"),
        ("a", "expected <"),
        ("a < ", "expected a number"),
        ("a < 1 2", "expected or, + or -, or the end"),
        ("a < (1 + 2)", "not understood at '(1 + 2)'"),
        ("a < 1 and a > 0", "not understood at 'and a > 0'"),
        ("a < 2 * a", "not understood at '* a'"),
        ("a < b/c - baseline", "whose baseline"),
        ("a == 1", "not understood at '== 1'"),
        ("__import__('os') < 1", "not understood at \"('os') < 1\""),
        ("best(1) < 1", "not understood at '(1) < 1'"),
        ("a / b < 1", "not understood at '/ b < 1'"),
        ("and < 1", "expected a number"),
        ("1.2.3 < a", "not understood"),
    ],
)
def test_what_is_no_condition(text, words):
    with pytest.raises(GateError) as caught:
        parse_gate(text)
    assert words in str(caught.value)


NUMBERS = st.floats(0, 100, allow_nan=False).map(lambda x: format(x, ".3f"))
SUMS = st.builds(
    lambda first, rest: first + "".join(rest),
    NUMBERS,
    st.lists(st.builds(" {} {}".format, st.sampled_from("+-"), NUMBERS)),
)


@given(SUMS, st.sampled_from(["<", "<=", ">", ">="]), SUMS)
def test_arithmetic_is_pythons(left, sign, right):
    text = f"{left} {sign} {right}"
    assert parse_gate(text).holds(lookup) == eval(text)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_an_error_of_ours(text):
    with suppress(GateError):
        assert parse_gate(text).metrics is not None


def test_runs_are_judged_against_the_first(write_run):
    clean, shortcut = write_run("clean"), write_run("shortcut", "nuisance")
    good, bad = (RecordStore(folder)[-1].metrics["cam/on_target_enrichment/gradcam"] for folder in (clean, shortcut))
    comparison = compare_runs(clean, shortcut)

    (verdict,) = comparison.judge("on_target_enrichment/gradcam < baseline - 0.2")
    assert verdict.failed and verdict.name == "shortcut"
    assert verdict.values == {
        "on_target_enrichment/gradcam": bad,
        "baseline(on_target_enrichment/gradcam)": good,
    }
    assert str(verdict).startswith("FAILED shortcut: on_target")
    assert [v.failed for v in comparison.judge("cam/on_target_enrichment/gradcam/layer4 < 1")] == [False, True]
    assert [v.failed for v in comparison.judge("best(val_acc) < 0.75")] == [False, False]
    assert [v.failed for v in comparison.judge("val_acc > 0.69 or seconds > 1")] == [True, True]


def test_a_run_without_the_value_fails(write_run):
    (verdict,) = compare_runs(write_run("a", nan=(7,))).judge("drift_ref/gradcam > 100")
    assert verdict.failed and math.isnan(verdict.values["drift_ref/gradcam"])


def test_names_that_a_run_does_not_have(write_run):
    comparison = compare_runs(write_run("a", layers=["layer3", "layer4"]))
    with pytest.raises(GateError, match=r"may be any of entropy/gradcam/layer3, entropy/gradcam/layer4"):
        comparison.judge("entropy/gradcam < 1")
    assert not comparison.judge("entropy/gradcam/layer3 < 0")[0].failed
    with pytest.raises(GateError, match="no metric 'entropie/gradcam'; nearest: entropy/gradcam"):
        comparison.judge("entropie/gradcam < 1")
    with pytest.raises(GateError, match="name at least two"):
        comparison.judge("entropy/gradcam/layer3 < baseline")
    with pytest.raises(GateError, match="neither more nor less is better"):
        comparison.judge("best(entropy/gradcam/layer3) < 1")


def test_what_must_not_be_compared_cannot_be_gated(write_run):
    other = compare_runs(write_run("a"), write_run("b", target="predicted"))
    with pytest.raises(GateError, match=r"must not be compared.*target predicted against label"):
        other.judge("on_target_enrichment/gradcam < baseline")
    assert len(other.judge("val_acc < baseline")) == 1
    across = compare_runs(write_run("a"), write_run("b", layers=["blocks.11"]))
    assert len(across.judge("on_target_enrichment/gradcam < baseline")) == 1
    with pytest.raises(GateError, match="must not be compared"):
        across.judge("entropy/gradcam < baseline")


def test_groups_are_judged_by_their_means(write_hparams):
    runs = [write_hparams("a", focus, lr=lr) for lr, focus in ((0.1, 0.8), (0.1, 0.7), (0.2, 0.3), (0.2, 0.2))]
    comparison = compare_runs(*runs, group_by="lr")
    finals = [RecordStore(run)[-1].metrics["cam/on_target_enrichment/gradcam"] for run in runs]

    (verdict,) = comparison.judge("on_target_enrichment/gradcam < baseline")
    assert verdict.name == "0.2" and verdict.failed
    assert verdict.values["on_target_enrichment/gradcam"] == pytest.approx(sum(finals[2:]) / 2)
    assert verdict.values["baseline(on_target_enrichment/gradcam)"] == pytest.approx(sum(finals[:2]) / 2)
