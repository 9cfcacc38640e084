import json
import statistics

import numpy as np
import pytest

from cam_callbacks.compare import LoadError, compare_runs
from cam_callbacks.compare.groups import GroupedRow, Spread
from cam_callbacks.compare.numbers import number
from cam_callbacks.records import RecordStore


def row(*groups):
    return GroupedRow("gradcam", number("entropy"), tuple(Spread(tuple(values)) for values in groups))


def test_mean_and_spread_are_those_of_the_statistics_module(write_hparams):
    runs = [write_hparams("r", focus, lr=lr) for lr, focus in ((0.1, 0.8), (0.1, 0.7), (0.1, 0.9), (0.2, 0.1))]
    found = compare_runs(*runs, group_by="lr").groups

    assert found.names == ("0.1", "0.2") and found.members == ((0, 1, 2), (3,))
    entropy = next(r for r in found.rows if r.number.key == "entropy")
    values = [RecordStore(run)[-1].metrics["cam/entropy/gradcam"] for run in runs]
    assert entropy.spreads[0].mean == pytest.approx(statistics.mean(values[:3]))
    assert entropy.spreads[0].std == pytest.approx(statistics.stdev(values[:3]))
    assert entropy.spread == pytest.approx(statistics.stdev(values[:3]))  # the only group with two runs
    assert np.isnan(entropy.spreads[1].std)
    assert entropy.within(1) is False


def test_the_spread_is_pooled_over_groups():
    pooled = np.sqrt((np.var([1, 3], ddof=1) + 2 * np.var([2, 4, 9], ddof=1)) / 3)
    assert row([1, 3], [2, 4, 9]).spread == pytest.approx(pooled)


@pytest.mark.parametrize(
    ("groups", "within"),
    [(([0, 1], [1, 2]), True), (([0, 0.1], [1, 1.1]), False), (([0], [1]), None), (([0, 1], []), None)],
)
def test_a_difference_is_within_the_spread_or_not(groups, within):
    assert row(*groups).within(1) is within


def test_text_page_and_json_say_it(write_hparams):
    runs = [write_hparams("r", focus, lr=lr) for lr, focus in ((0.1, 0.5), (0.1, 0.8), (0.2, 0.52), (0.2, 0.79))]
    comparison = compare_runs(*runs, group_by="lr")

    text = comparison.text()
    assert "grouped by lr" in text and "within the spread" in text
    assert max(map(len, text.splitlines())) <= 100
    (table,) = comparison.data["tables"]
    assert table["head"] == ["final value", "0.1 (2 runs)", "0.2 (2 runs)"]
    assert all(len(cells) == 3 for cells in table["rows"])
    assert any("within the spread" in cell for cells in table["rows"] for cell in cells)
    assert "within the spread" in comparison.page()
    groups = json.loads(comparison.json())["groups"]
    assert groups["by"] == "lr" and groups["members"] == {"0.1": [0, 1], "0.2": [2, 3]}
    enrichment = next(n for n in groups["numbers"] if n["metric"] == "on_target_enrichment")
    assert enrichment["groups"]["0.2"]["n"] == 2 and enrichment["groups"]["0.2"]["within_spread"] is True


def test_a_parameter_that_no_run_has(write_hparams):
    with pytest.raises(LoadError, match=r"no run has a parameter 'seeds' to group by; there are lr, opt/name"):
        compare_runs(write_hparams("a", 0.5, lr=0.1, opt={"name": "sgd"}), group_by="seeds")


def test_parameters_that_hold_objects_are_not_read(write_run, tmp_path):
    folder = write_run("a", folder=tmp_path / "version_0" / "cam")
    (tmp_path / "version_0" / "hparams.yaml").write_text("lr: !!python/object/apply:os.system ['true']\n")
    assert compare_runs(folder).runs[0].params == {}
