import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import reading

from cam_callbacks.compare import compare_runs


def test_its_run_is_one_that_compare_reads_whole(tmp_path, capsys):
    reading.main(["--looks", "3", "--folder", str(tmp_path / "run")])
    assert capsys.readouterr().out.count(" s\n") == len(reading.steps(tmp_path))
    comparison = compare_runs(tmp_path / "run")
    assert comparison.notes == () and len(comparison.runs[0].records) == 3
    assert len(comparison.agreed.parts) == 3 and comparison.data["parts"][0]["title"] == "eigencam · layer4 (7×7)"
