"""One sentence a run: what was measured, and no more."""

import math

import numpy as np
import pytest

from cam_callbacks.compare.run import Run
from cam_callbacks.compare.verdict import said, standing, verdict
from cam_callbacks.records import Alert, Judged, Record

MAPS = {("eigencam", "layer4"): np.ones((8, 4, 4), np.float32), ("gradcam", "layer4"): np.ones((8, 4, 4), np.float32)}


def alert(name, since=4, method="", measured="measured"):
    return Alert(name, method, "layer4" if method else "", 9, 9, since, since, False, measured, (), "Look.")


def judged(rule, state="quiet", words="measured", method="", statistic=0.0):
    return Judged(rule, method, "layer4" if method else "", state, statistic, 2.0, words)


QUIET = (judged("background_decides"), judged("off_target", method="gradcam"), judged("frame_decides"))


def run(name="run", *, target=None, nuisance=None, shares=None, alerts=(), rules=QUIET, valid=1.0, **users):
    """A run of one look: enrichments of eigencam and gradcam, shares of exchanges, alerts and what the rules found."""
    metrics = {f"cam/valid_frac/{method}": valid for method in ("eigencam", "gradcam")}
    for metric, values in (("on_target_enrichment", target), ("nuisance_enrichment", nuisance)):
        if values is not None:
            metrics |= {f"cam/{metric}/eigencam": values[0], f"cam/{metric}/gradcam": values[1]}
    aggregates = {f"follows_{part}": {"mean": share, "n": 64.0} for part, share in (shares or {}).items()}
    record = Record(
        9, 9, 90, metrics, MAPS, aggregates=aggregates, alerts=tuple(alerts), judged=tuple(rules), user_metrics=users
    )
    return Run(name, name, {"methods": ["eigencam", "gradcam"], "layers": ["layer4"]}, [record])


def shortcut(**more):
    alerts = [alert("background_decides"), alert("off_target", 6, "gradcam")]
    known = {"target": (0.4, 0.56), "nuisance": (5.0, 6.22), "shares": {"object": 0.02, "background": 0.96}}
    return run("shortcut", alerts=alerts, **known | {"val_acc": 1.0} | more)


def clean(**more):
    return run(
        "clean", **{"target": (2.0, 3.18), "shares": {"object": 0.955, "background": 0.01}, "val_acc": 0.93} | more
    )


def test_a_shortcut_is_named_with_what_it_costs_to_believe_the_accuracy():
    runs = [clean(), shortcut()]
    assert verdict(runs[1], runs) == (
        "highest validation accuracy (1.000), but the prediction follows the background in 96 % of exchanges; "
        "0.56× on the object, 6.2× on the suspected region, since epoch 4."
    )
    assert standing(runs[1]) == "alarm"
    assert said(runs[1]).startswith("shortcut: validation accuracy 1.000, but ")


def test_a_healthy_run_follows_the_object():
    assert verdict(clean()) == (
        "validation accuracy 0.930, and the prediction follows the object in 96 % of exchanges; 3.2× on the object; no alert."
    )
    assert standing(clean()) == "clear"


def test_the_highest_is_said_of_one_run_alone():
    alike = [clean(), clean(), shortcut(val_acc=0.5)]
    assert not any("highest" in verdict(one, alike) for one in alike)
    assert "highest" not in verdict(shortcut(), [shortcut()])


def test_without_masks_nothing_is_claimed_about_the_object():
    bare = run(
        shares={"frame": 0.03}, rules=[judged("frame_decides"), judged("off_target", "cannot judge", "needs masks")]
    )
    said_of = verdict(bare)
    assert said_of == (
        "the outermost pixels carry the class in 3 % of exchanges; no alert, but whether it looks at the object nobody knows "
        "without masks or boxes."
    )
    assert standing(bare) == "open"


CHANCE = "the model is at chance on the probe"
UNSETTLED = "the focus has not settled"


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ((judged("background_decides", "cannot judge", CHANCE), judged("off_target", "cannot judge", CHANCE)), CHANCE),
        ((judged("off_target", "cannot judge", UNSETTLED), judged("collapsed")), UNSETTLED),
        ((judged("off_target", "cannot judge", "needs masks"),), "nothing that a rule needs was measured"),
    ],
)
def test_what_cannot_be_judged_says_why(rules, reason):
    one = run(target=(1.0, 1.0), rules=rules, val_acc=0.1)
    assert verdict(one) == f"cannot judge: {reason}; validation accuracy 0.100."
    assert standing(one) == "open"


def test_a_run_without_valid_maps():
    assert verdict(run(valid=0.0)) == "cannot judge: no image has a valid map."
    collapsed = run(valid=0.0, alerts=[alert("collapsed", 2, "gradcam")], target=(math.nan, math.nan))
    assert verdict(collapsed) == "no image has a valid map, since epoch 2."
    some = run(valid=0.2, alerts=[alert("collapsed", 2, "gradcam")], target=(math.nan, math.nan))
    assert verdict(some) == "most images have no map, since epoch 2."


def test_what_a_second_look_would_raise_is_not_called_clear():
    pending = judged("background_decides", statistic=6.9)
    one = clean(shares={"object": 0.32}, rules=(*QUIET, pending))
    assert standing(one) == "open"
    assert verdict(one) == (
        "validation accuracy 0.930, and the prediction follows the object in 32 % of exchanges; 3.2× on the object; "
        "an alert takes another look like this one."
    )


def test_an_untrusted_map_gives_no_numbers_and_another_method_takes_its_place():
    remark = judged("map_untrusted", "remark", "focus carries no more", "gradcam")
    assert "2.0× on the object" in verdict(clean(rules=(*QUIET, remark)))
    both = (*QUIET, remark, judged("map_untrusted", "remark", "focus carries no more", "eigencam"))
    assert "× on the object" not in verdict(clean(rules=both))
    assert "its maps do not show what decides" in verdict(clean(rules=both))


@pytest.mark.parametrize(
    ("names", "shares", "words"),
    [
        (["nuisance_decides"], {"nuisance": 0.9}, "the prediction follows the suspected region in 90 % of exchanges"),
        (["frame_decides"], {"frame": 0.71}, "the prediction follows the outermost pixels in 71 % of exchanges"),
        (
            ["background_decides", "nuisance_decides"],
            {"background": 0.96, "nuisance": 0.94},
            "the prediction follows the background in 96 % of exchanges, the suspected region alone in 94 %",
        ),
        (["off_target"], {}, "the focus is off the object"),
        (["focus_moved"], {}, "the focus has moved since the reference"),
        (["off_target", "focus_moved"], {}, "the focus is off the object and the focus has moved since the reference"),
        (["my_rule"], {}, "my rule"),
    ],
)
def test_what_is_raised_is_the_cause(names, shares, words):
    one = run(alerts=[alert(name, 3) for name in names], shares=shares)
    assert verdict(one) == f"{words}, since epoch 3."


@pytest.mark.parametrize(
    ("users", "words"),
    [
        ({"val_acc": 0.5, "train_acc": 0.9}, "validation accuracy 0.500"),
        ({"train/accuracy": 0.9, "val_f1": 0.8}, "accuracy 0.900"),
        ({"val_f1": 0.8}, "val_f1 0.800"),
        ({"acc": 93.25}, "accuracy 93.25"),
        ({"val_acc": math.nan, "f1": 0.7}, "f1 0.700"),
    ],
)
def test_which_number_is_the_accuracy(users, words):
    assert verdict(run(target=(2.0, 2.0), **users)).startswith(f"{words}, and ")


def test_a_loss_is_no_accuracy():
    assert verdict(run(target=(2.0, 2.0), val_loss=0.1)) == "2.0× on the object; no alert."


def test_records_from_before_there_were_rules_claim_no_alert():
    assert verdict(run(target=(2.0, 2.0), rules=())) == "2.0× on the object; no alert rule was asked."


def test_a_name_cannot_break_the_line():
    assert "\n" not in said(run("a\nb\x1b[31m"))


def test_an_exchange_that_was_left_out_at_the_last_look_is_that_of_the_look_before():
    first, last = shortcut().records[0], shortcut(shares={}).records[0]
    both = Run("run", "run", {"methods": ["eigencam", "gradcam"], "layers": ["layer4"]}, [first, last])
    assert "the background in 96 % of exchanges" in verdict(both)
