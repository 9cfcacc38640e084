# %% [markdown]
# # Compare runs in MLflow, and gate a merge
#
# Two trainings in one MLflow experiment: the accepted model, and a candidate with better accuracy. Which goes into
# production is decided by a command that fails a CI job.

# %%
import logging
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger
from torch.utils.data import DataLoader

from cam_callbacks import CAMCallback, ProbeSet
from cam_callbacks.demo.data import make_dataset, make_probe, make_scenes
from cam_callbacks.demo.model import SmallConvNet

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
URI = "sqlite:///mlflow.db"
scenes = make_scenes(seed=0, n_train=1500)
every_third = slice(None, None, 3)
whole = make_probe(scenes.probe)  # knows where digit and tag are
probe = ProbeSet(
    whole.images[every_third], whole.labels[every_third], masks=whole.masks[every_third],
    nuisance=whole.nuisance[every_third], mean=0.5, std=0.25,
)  # fmt: skip
ids = {}
for name, cue in (("accepted", "random"), ("candidate", "class")):
    logger = MLFlowLogger("digits", name, URI, artifact_location=Path("artifacts").resolve().as_uri())
    trainer = pl.Trainer(
        max_epochs=6, callbacks=[CAMCallback(probe, methods="gradcam", max_images=4, exchange_pairs=3)],
        logger=logger, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    train_set, val_set = make_dataset(scenes.train, cue, 0), make_dataset(scenes.val, cue, 1)
    torch.manual_seed(0)
    trainer.fit(SmallConvNet(seed=0), DataLoader(train_set, 32, shuffle=True), DataLoader(val_set, 150))
    ids[name] = logger.run_id
print(", ".join(ids))

# %% [markdown]
# ## From Python
#
# Runs are given by their MLflow ids; the first is the baseline. Of the table only the verdicts are printed here, its
# last lines.

# %%
from cam_callbacks.compare import compare_runs

comparison = compare_runs(ids["accepted"], ids["candidate"], tracking_uri=URI)
print(comparison.text().rpartition("\n\n")[2])

# %% [markdown]
# One page of both, and a run of its own in MLflow with that page and a table (`cam-callbacks compare … --log` does the
# same):

# %%
import mlflow

page = comparison.write("page.html")
logged = comparison.log(URI, "digits")
mlflow.set_tracking_uri(URI)
print([artifact.path for artifact in mlflow.MlflowClient().list_artifacts(logged)], page.stat().st_size // 1000, "kB")

# %% [markdown]
# ## As a gate
#
# In CI this is one line of shell, and its exit code is the job's:
#
# ```sh
# cam-callbacks compare $ACCEPTED $CANDIDATE --tracking-uri $URI -o page.html \
#     --fail-if "val_acc < baseline - 0.01" --fail-if "object_share < 0.5"
# ```
#
# The command from Python, and what it returns:

# %%
import contextlib
import io

from cam_callbacks.cli import main


def exit_code(condition):
    with contextlib.redirect_stdout(io.StringIO()):  # the table
        runs = [ids["accepted"], ids["candidate"], "--tracking-uri", URI]
        return main(["compare", *runs, "-o", "page.html", "--fail-if", condition])


for condition in ("val_acc < baseline - 0.01", "object_share < 0.5"):
    print(f"{condition:26} exit code {exit_code(condition)}")

# %% [markdown]
# Accuracy lets the candidate through, and the gate on `object_share` holds it. A job of GitHub Actions to paste, and
# the conditions that can be asked: [compare](../compare.md#in-ci).
