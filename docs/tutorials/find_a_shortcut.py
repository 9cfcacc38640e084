# %% [markdown]
# # Find a shortcut, without masks and then with boxes
#
# Digits on photographs, and in a corner a small tag whose colour gives the class away. You do not know about the tag:
# you have a model with excellent validation accuracy. What does it look at?
#
# The data are the demo's: scikit-learn's digits and photographs, nothing is downloaded.

# %%
import logging
import warnings

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from cam_callbacks import CAMCallback, ProbeSet
from cam_callbacks.demo.data import make_dataset, make_scenes
from cam_callbacks.demo.model import SmallConvNet

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
scenes = make_scenes(seed=0, n_train=1200)
train_set, val_set = (make_dataset(part, cue="class", seed=i) for i, part in enumerate((scenes.train, scenes.val)))


def train(watch, epochs=6):
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[watch], accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    model = SmallConvNet(seed=0)
    trainer.fit(model, DataLoader(train_set, 64, shuffle=True), DataLoader(val_set, 150))
    return model, float(trainer.callback_metrics["val_acc"])


# %% [markdown]
# ## Without masks
#
# The probe is validation images with their labels. Nothing says where the digit is.

# %%
probe_set = make_dataset(scenes.probe, cue="class", seed=2)
chosen = torch.cat([torch.where(scenes.probe.labels == digit)[0][:3] for digit in range(10)])
images, labels = probe_set.tensors[0][chosen], scenes.probe.labels[chosen]
probe = ProbeSet(images, labels.tolist(), mean=0.5, std=0.25)

watch = CAMCallback(probe, methods=("gradcam",), folder="without", exchange_pairs=3)
model, accuracy = train(watch)
print(f"validation accuracy {accuracy:.2f}")

# %% [markdown]
# Excellent. Now the pixels under the focus, a row for each class:

# %% alt="Wall of crops under the focus, a row a class: every crop shows the coloured tag of its class and hardly any digit"
from PIL import Image

from cam_callbacks.drawing import Drawing

drawing = Drawing(watch.store)
Image.fromarray(drawing.wall(watch.store[-1], "gradcam", "features"))

# %% [markdown]
# Not digits: squares, of one colour in each class. Two numbers point there too, without knowing of digits or tags.
# `consensus` is how alike the maps are, against what maps as diffuse reach by chance; `follows_focus` is how often the
# pixels under the focus carry the class into another image.

# %%
last = watch.store[-1].metrics
for name in (
    "consensus/gradcam",
    "consensus_chance/gradcam",
    "follows_focus/gradcam",
    "follows_random/gradcam",
    "follows_frame",
):
    print(f"{name:26}{last[f'cam/{name}']:.2f}")

# %% [markdown]
# All images are looked at in the same place, and that place decides. Digits stand anywhere: it cannot be them.
#
# ## With boxes drawn
#
# `cam-callbacks annotate without` opens the probe in a browser: drag a box around each digit, `S` saves. Here the file
# that it saves is written from what is known of the scenes.

# %%
import json

drawn = {}
for image, digit in zip(watch.store.manifest["probe"]["ids"], scenes.probe.digits[chosen], strict=True):
    y, x = torch.where(digit)
    drawn[image] = {"boxes": [[int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]]}
with open("boxes.json", "w") as file:
    json.dump({"format": 1, "size": [48, 48], "images": drawn}, file)

# %% [markdown]
# No need to train again: one look at the trained model, with the boxes.

# %%
from cam_callbacks import CAMMonitor

with_boxes = ProbeSet(images, labels.tolist(), boxes="boxes.json", mean=0.5, std=0.25)
record = CAMMonitor(with_boxes, methods=("gradcam",), folder="with_boxes", exchange_pairs=3).look(model)
print(f"object_share          {record.metrics['cam/object_share']:.2f}   below ½ the scene decides, not the object")
print(
    f"on_target_enrichment  {record.metrics['cam/on_target_enrichment/gradcam']:.2f}   below 1 the focus is elsewhere"
)
for judged in record.judged:
    if judged.rule == "background_decides":
        print(f"{judged.rule}: {judged.words}")

# %% [markdown]
# From the next training on, `CAMCallback(probe, boxes="boxes.json")` raises the alert `background_decides` while there
# is still time to look at the data. What it costs to be wrong about such alerts is measured in
# [evidence](../evidence.md).
