# %% [markdown]
# # After the fact, from checkpoints
#
# A training is over, nobody watched it, and its checkpoints are there. The records can still be made: the same as if it
# had been watched.

# %%
import logging
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
torch.manual_seed(0)
data = load_digits()
images = nn.functional.interpolate(torch.from_numpy(data.images).float()[:, None] / 16, size=(32, 32), mode="bilinear")
labels = torch.from_numpy(data.target)


def network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 2e-3)


# %% [markdown]
# ## A training that nobody watches

# %%
trainer = pl.Trainer(
    max_epochs=6, callbacks=[ModelCheckpoint("checkpoints", "{epoch}", save_top_k=-1)], accelerator="cpu", logger=False,
    enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
trainer.fit(Digits(), DataLoader(TensorDataset(images[500:], labels[500:]), 64, shuffle=True))
print(*sorted(path.name for path in Path("checkpoints").iterdir()))

# %% [markdown]
# ## Looked at afterwards
#
# `replay` takes the model that the weights fit, the checkpoints and a probe. `.ckpt`, plain state dicts, `.safetensors`
# and folders of shards are read, and with `weights_only=True`: a file that would have to be unpickled is refused.

# %%
from cam_callbacks import ProbeSet, replay

probe = ProbeSet(images[:20], labels[:20].tolist())
model = Digits()
records = replay(
    model, "checkpoints", probe, folder="looks", methods=("gradcam", "eigencam"), forward=lambda m, x: m.net(x)
)
for record in records:
    right = float((record.predictions == labels[:20].numpy()).mean())
    print(f"epoch {record.epoch}: {right:.0%} of the probe right, drift {record.metrics['cam/drift_prev/gradcam']:.3f}")

# %% alt="Film strip: six digits down, six epochs across; the focus of Grad-CAM settles on the strokes"
from PIL import Image

from cam_callbacks import RecordStore
from cam_callbacks.drawing import Drawing

store = RecordStore("looks")
Image.fromarray(Drawing(store, max_images=6).strip(list(store), "gradcam", store.manifest["layers"][0]))

# %% [markdown]
# ## From the command line
#
# The same without a line of Python, for a model that a module can make:
#
# ```sh
# cam-callbacks replay checkpoints/ --model my_models:digits --probe photos/ --folder looks
# cam-callbacks report looks
# ```

# %%
from cam_callbacks.compare import compare_runs

page = compare_runs("looks").write("page.html")  # what `cam-callbacks report` writes
print(f"{page.name} has {page.stat().st_size // 1000} kB and fetches nothing")
