"""An anomaly detector of anomalib with no argument."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from works_with import Witness, row, scene

from cam_callbacks import CAMCallback

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]
pytest.importorskip("anomalib", reason="make test-models runs this in .venv-peers")


def test_patchcore(tmp_path):
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Patchcore

    for split, n, seed in (("good", 12, 0), ("bad", 6, 500), ("fine", 4, 900)):  # squares are good, crosses bad
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(n):
            picture = (scene(seed + 3 * i).image * 255).byte().permute(1, 2, 0).numpy()
            Image.fromarray(picture).save(tmp_path / "data" / split / f"{i}.png")

    def fit(name, *callbacks):
        pl.seed_everything(0, verbose=False)
        size = Patchcore.configure_pre_processor(image_size=(64, 64))
        model = Patchcore(backbone="resnet18", layers=["layer1", "layer2"], pre_trained=False, pre_processor=size)
        data = Folder(name="shapes", root=tmp_path / "data", normal_dir="good", abnormal_dir="bad", normal_test_dir="fine",
                      train_batch_size=4, eval_batch_size=16, num_workers=0, val_split_mode="same_as_test")  # fmt: skip
        engine = Engine(callbacks=list(callbacks), default_root_dir=tmp_path / name, accelerator="cpu", logger=False)
        engine.fit(model, datamodule=data)
        return model

    callback, witness = CAMCallback(on_error="raise"), Witness("model")
    watched, plain = fit("watched", callback, witness), fit("plain")
    for key, ours in watched.state_dict().items():
        assert torch.equal(ours.nan_to_num(), plain.state_dict()[key].nan_to_num()), key
    (record,) = callback.store
    rows = [int(i) for i in callback.watcher.monitor.probe.ids]
    assert callback.failed_looks == 0 and callback.store.manifest["task"]["kind"] == "anomaly"
    np.testing.assert_allclose(record.scores, witness.returned.pred_score.flatten()[rows], rtol=1e-3)
    assert record.predictions is None and not record.alerts
    assert callback.store.manifest["layers"] == ["model.feature_extractor"]
    row("anomalib", "PatchCore", "", callback.store, "anomalib_patchcore", "eigencam")
