# %% [markdown]
# # One image
#
# `explain` takes a model and an image, and gives a heatmap and an overlay. With weights at hand it is one command:
#
# ```sh
# cam-callbacks explain torchvision:mobilenet_v2 cat.jpg
# ```
#
# Here nothing is downloaded: a small network learns, in half a minute, which of four of scikit-image's photographs a
# crop comes from. Then it sees all four at once, and each class should find its own.

# %%
import numpy as np
import torch
from skimage import data
from torch import nn

torch.manual_seed(0)
NAMES = ["astronaut", "chelsea", "coffee", "rocket"]
photographs = [torch.from_numpy(getattr(data, name)()).permute(2, 0, 1).float() / 255 for name in NAMES]
photographs = [nn.functional.interpolate(photo[None], (192, 256), mode="area")[0] for photo in photographs]
CROP = 48
rng = np.random.default_rng(0)


def crops(n):
    kinds = rng.integers(len(NAMES), size=n)
    places = rng.integers((0, 0), (192 - CROP, 256 - CROP), size=(n, 2))
    images = [photographs[k][:, y : y + CROP, x : x + CROP] for k, (y, x) in zip(kinds, places, strict=True)]
    return (torch.stack(images) - 0.5) / 0.25, torch.from_numpy(kinds)


model = nn.Sequential(
    nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.BatchNorm2d(48), nn.ReLU(),
    nn.Conv2d(48, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(NAMES)),
)  # fmt: skip
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(150):
    images, kinds = crops(48)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), kinds).backward()
    optimizer.step()
model.eval()
images, kinds = crops(400)
print(f"right on new crops: {(model(images).argmax(1) == kinds).float().mean():.0%}")

# %% [markdown]
# ## Four photographs in one picture

# %% alt="The four photographs side by side: astronaut, cat, coffee cup, rocket"
from PIL import Image

rows = [torch.cat(photographs[:2], 2), torch.cat(photographs[2:], 2)]
montage = (torch.cat(rows, 1).permute(1, 2, 0) * 255).byte().numpy()
Image.fromarray(montage).save("montage.png")
Image.fromarray(montage)

# %% [markdown]
# ## Explained
#
# `target=` is the class to explain. The model is called with the picture normalised as you say; its state afterwards is
# that of before.

# %% alt="Overlay for the class chelsea: the focus lies on the photograph of the cat, upper right"
from cam_engine import explain

settings = {"method": "gradcam", "mean": 0.5, "std": 0.25, "class_names": NAMES}
found = explain(model, "montage.png", target=NAMES.index("chelsea"), **settings)
Image.fromarray(found["overlay"])

# %% [markdown]
# In numbers: how much of each class's map lies on its own photograph. A quarter is chance.

# %%
height, width = montage.shape[:2]
for k, name in enumerate(NAMES):
    heat = explain(model, "montage.png", target=k, **settings)["heatmap"]
    y, x = (k // 2) * height // 2, (k % 2) * width // 2
    share = heat[y : y + height // 2, x : x + width // 2].sum() / heat.sum()
    print(f"{name:10} {share:.0%}")

# %% [markdown]
# ## Other methods, and many
#
# `compare_methods` draws several on one sheet; [methods](../methods.md) says which answers which question. EigenCAM asks
# for no class: it shows what stands out, here the astronaut.

# %% alt="Five methods for the class coffee: three lie on the cup, EigenCAM on the astronaut, random weights on the rocket"
from cam_engine import compare_methods

compared = compare_methods(
    model, "montage.png", methods=["gradcam", "layercam", "hirescam", "eigencam", "randomcam"],
    target=NAMES.index("coffee"), mean=0.5, std=0.25, class_names=NAMES,
)  # fmt: skip
Image.fromarray(compared["sheet"])
