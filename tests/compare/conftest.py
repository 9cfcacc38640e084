"""Runs on one probe, written to disk as a training writes them: they come to look at the target, or at a tag."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cam_callbacks.keys import series_name
from cam_callbacks.records import Record, RecordStore
from cam_engine.metrics import consensus, coverage, enrichment, entropy, jensen_shannon

N, SIZE, GRID = 6, 48, 12
EPOCHS = 8
FINGERPRINT = "5f" * 32


@pytest.fixture(scope="session")
def probe_arrays() -> dict[str, np.ndarray]:
    """Pictures with a bright square, the target, and a red tag in the lower right corner."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    pictures = np.empty((N, SIZE, SIZE, 3), np.uint8)
    masks, tags = np.zeros((N, SIZE, SIZE), bool), np.zeros((N, SIZE, SIZE), bool)
    for i in range(N):
        shade = 90 + 60 * np.sin(rows / (5 + i) + columns / 9)[..., None] * np.array([0.6, 0.9, 0.7])
        pictures[i] = (shade + random.normal(0, 6, shade.shape)).clip(0, 255)
        top, left = random.integers(2, 22, 2)
        masks[i, top : top + 16, left : left + 12] = True
        tags[i, 40:46, 40:46] = True
        pictures[i][masks[i]] = 235
        pictures[i][tags[i]] = (210, 40, 40)
    return {"pictures": pictures, "labels": np.arange(N) % 3, "masks": masks, "nuisance": tags}


def _maps(regions: np.ndarray, focus: float) -> np.ndarray:
    """(N, GRID, GRID) float32: a share of attention on the regions, the rest spread out."""
    cover = coverage(regions, (GRID, GRID))
    spread = np.full_like(cover, 1 / GRID**2)
    return ((1 - focus) * spread + focus * cover / cover.sum(axis=(1, 2), keepdims=True)).astype(np.float32)


@pytest.fixture
def write_run(tmp_path: Path, probe_arrays: dict[str, np.ndarray]) -> Callable[..., Path]:
    """``write_run("clean", "masks")``: a folder of records of a run whose attention grows on "masks" or on "nuisance".

    ``skip``: looks that are not written. ``nan``: looks whose drift is undefined. ``focus``: share of attention there
    at the end. Other words replace entries of the manifest.
    """

    def write(
        run: str,
        on: str = "masks",
        *,
        folder=None,
        epochs=EPOCHS,
        skip=(),
        nan=(),
        grid=(GRID, GRID),
        focus=0.85,
        **manifest,
    ):
        store = RecordStore(folder or tmp_path / f"records-{len(list(tmp_path.iterdir()))}")
        methods, layers = manifest.get("methods", ["gradcam"]), manifest.get("layers", ["layer4"])
        prefix = f"cam/{manifest['name']}" if manifest.get("name") else "cam"
        probe = {"fingerprint": FINGERPRINT, "n": N, "image_size": [SIZE, SIZE], "ids": [f"im{i}" for i in range(N)]}
        probe |= {"class_names": ["zero", "one", "two"], "groups": None}
        store.write_probe(probe_arrays)
        store.write_manifest(
            {"run": run, "created": 1.7e9, "version": "0.1.0", "model": "Net", "methods": methods, "layers": layers}
            | {"grids": {layer: list(grid) for layer in layers}, "target": "label", "reference": "settled"}
            | {"name": None, "probe": probe, "versions": {}}
            | manifest
        )
        first = _maps(probe_arrays[on], 0.05)
        for look in sorted(set(range(epochs)) - set(skip)):
            maps = _maps(probe_arrays[on], 0.05 + (focus - 0.05) * look / max(1, epochs - 1))
            drift = jensen_shannon(maps, first) * (np.nan if look in nan else 1)
            metrics, per_image, reference = {f"{prefix}/seconds": 0.25, f"{prefix}/failed_looks": 0.0}, {}, {}
            for method in methods:
                for layer in layers:
                    tail = series_name(method, layer, layers)
                    values = {
                        "on_target_enrichment": np.asarray(
                            enrichment(maps, coverage(probe_arrays["masks"], (GRID, GRID)))
                        ),
                        "nuisance_enrichment": np.asarray(
                            enrichment(maps, coverage(probe_arrays["nuisance"], (GRID, GRID)))
                        ),
                        "drift_ref": drift,
                        "entropy": entropy(maps),
                    }
                    per_image |= {f"{name}/{tail}": value for name, value in values.items()}
                    metrics |= {f"{prefix}/{name}/{tail}": float(value.mean()) for name, value in values.items()}
                    metrics[f"{prefix}/focus_drift/{tail}"] = (float(drift.mean()) - 0.02) / 0.98
                    metrics[f"{prefix}/consensus/{tail}"] = float(consensus(maps).mean())
                    metrics[f"{prefix}/valid_frac/{tail}"] = 1.0
                    metrics[f"{prefix}/noise_floor/{tail}"] = 0.02
                    reference[f"{method}/{layer}"] = {"look": 0, "settled": True, "floor": 0.02, "ceiling": 0.4}
            store.write(
                Record(
                    look=look,
                    epoch=look,
                    step=10 * look,
                    metrics=metrics,
                    maps={(method, layer): maps for method in methods for layer in layers},
                    per_image=per_image,
                    reference=reference,
                    user_metrics={"val_acc": 0.5 + look / 20 if look < 6 else 0.7, "val_loss": 1.0 / (1 + look)},
                    seconds=0.25,
                    time=1.7e9 + look,
                )
            )
        return store.folder

    return write


@pytest.fixture
def write_hparams(write_run, tmp_path) -> Callable[..., Path]:
    """``write_hparams("a", 0.8, lr=0.1)``: a log folder of Lightning's with records whose last maps are so focused, and its
    ``hparams.yaml``."""
    import yaml

    def write(run: str, focus: float, **params):
        folder = tmp_path / "logs" / f"version_{len(list((tmp_path / 'logs').glob('*')))}"
        folder.mkdir(parents=True)
        (folder / "hparams.yaml").write_text(yaml.safe_dump(params))
        return write_run(run, folder=folder / "cam", epochs=3, focus=focus)

    return write
