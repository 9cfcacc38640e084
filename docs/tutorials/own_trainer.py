# %% [markdown]
# # Your own Trainer
#
# A training with Lightning as you may have it, on the handwritten digits that come with scikit-learn, and one line
# more. At the end you have pictures in TensorBoard, numbers that `ModelCheckpoint` can go by, and records on disk.

# %%
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
data = load_digits()
images = torch.from_numpy(data.images).float()[:, None] / 16  # (1797, 1, 8, 8)
images = nn.functional.interpolate(images, size=(32, 32), mode="bilinear") * 4 - 2
labels = torch.from_numpy(data.target)
train_set, val_set = TensorDataset(images[500:], labels[500:]), TensorDataset(images[:500], labels[:500])


# %%
class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


# %% [markdown]
# ## The line
#
# `CAMCallback()` takes 16 images of the validation set and looks at them at every validation. What it logs is there for
# monitors, early stopping and names of checkpoints like any other number; with boxes on the probe,
# `monitor="cam/on_target_enrichment/gradcam"` keeps the checkpoint that looks at the object most.

# %%
from cam_callbacks import CAMCallback

watch = CAMCallback()
name = "epoch {epoch}, entropy {cam/entropy/gradcam:.2f}"
keep = ModelCheckpoint("checkpoints", name, monitor="val_acc", mode="max", auto_insert_metric_name=False)
trainer = pl.Trainer(
    max_epochs=8,
    callbacks=[watch, keep],
    logger=TensorBoardLogger("runs"),
    accelerator="cpu",
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Digits(), DataLoader(train_set, 32, shuffle=True), DataLoader(val_set, 250))

# %% [markdown]
# ## What it left
#
# Records: one for each look, with the maps and every number. `trainer.callback_metrics` has the last ones.

# %%
for record in watch.store:
    accuracy, drift = record.user_metrics["val_acc"], record.metrics["cam/drift_prev/gradcam"]
    decides = record.metrics.get("cam/follows_focus/gradcam", 0)  # not measured while the model names one class alone
    print(f"epoch {record.epoch}: accuracy {accuracy:.2f}, drift {drift:.3f}, focus decides {decides:.2f}")
print("in callback_metrics:", sum(key.startswith("cam/") for key in trainer.callback_metrics), "numbers")
print("kept:", keep.best_model_path.split("/")[-1])

# %% [markdown]
# The film strip is one of the pictures that TensorBoard, MLflow and W&B get: images down, epochs across, those whose
# map moved most first.

# %% alt="Film strip: five handwritten digits down, eight epochs across; the focus gathers on parts of the strokes"
from PIL import Image

from cam_callbacks.drawing import Drawing

drawing = Drawing(watch.store, max_images=5)
Image.fromarray(drawing.strip(list(watch.store), "gradcam", "features"))

# %% [markdown]
# ## Look at it
#
# ```sh
# tensorboard --logdir runs --samples_per_plugin images=1000   # tab CAM: both methods, every epoch, live
# cam-callbacks report runs                                    # the same as one page
# ```
#
# Next: [find a shortcut](find_a_shortcut.md), where the pictures say something that accuracy does not.
