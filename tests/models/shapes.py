"""A YOLOv8n that has really learned something: squares and discs on textured backgrounds, 160 px, in two minutes on one core.

No object is smaller than four cells of the finest head input: the peak of a map is a cell, and beside a smaller box it may be
the one that the box covers by half.

``trained()`` keeps the weights beside this file under ``.cache``, by a hash of this script.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch

SIZE, NAMES = 160, {0: "square", 1: "disc"}
STEPS, BATCH, LEARNING_RATE = 320, 12, 2e-3
CACHE = Path(__file__).with_name(".cache")


def draw(generator):
    """One picture (3, 160, 160) in [0, 1], its labels (n,) and boxes (n, 4), xyxy in pixels; 1 to 3 objects of 32 to 100 px."""
    coarse = generator.uniform(0, 1, (3, 20, 20)).repeat(8, 1).repeat(8, 2)
    picture = 0.25 + 0.3 * coarse + 0.15 * generator.uniform(0, 1, (3, SIZE, SIZE))
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    labels, boxes = [], []
    for _ in range(40):
        if len(labels) >= generator.integers(1, 4):
            break
        side = float(np.exp(generator.uniform(np.log(32), np.log(100))))
        left, top = generator.uniform(2, SIZE - 2 - side, 2)
        box = [left, top, left + side, top + side]
        if any(box[0] < b[2] + 4 and b[0] < box[2] + 4 and box[1] < b[3] + 4 and b[1] < box[3] + 4 for b in boxes):
            continue
        label = int(generator.integers(2))
        inside = (abs(x - left - side / 2) <= side / 2) & (abs(y - top - side / 2) <= side / 2)
        if label == 1:
            inside = (x - left - side / 2) ** 2 + (y - top - side / 2) ** 2 <= (side / 2) ** 2
        colour = generator.uniform(0, 1, 3)
        colour[generator.integers(3)] = generator.choice([0.0, 1.0])
        picture[:, inside] = colour[:, None] * 0.9 + 0.1 * generator.uniform(0, 1, (3, int(inside.sum())))
        labels.append(label)
        boxes.append(box)
    return picture.astype(np.float32), np.array(labels), np.array(boxes, dtype=np.float32).reshape(-1, 4)


def batch(generator, count):
    """What ultralytics' losses take."""
    pictures, classes, boxes, index = [], [], [], []
    for i in range(count):
        picture, labels, xyxy = draw(generator)
        pictures.append(picture)
        classes += labels.tolist()
        boxes += np.c_[(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]].tolist()
        index += [i] * len(labels)
    return {
        "img": torch.from_numpy(np.stack(pictures)),
        "cls": torch.tensor(classes, dtype=torch.float32)[:, None],
        "bboxes": torch.tensor(boxes) / SIZE,
        "batch_idx": torch.tensor(index, dtype=torch.float32),
    }


def build():
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    net = DetectionModel("yolov8n.yaml", nc=len(NAMES), verbose=False)
    net.args, net.names = get_cfg(), dict(NAMES)
    return net


def train(net, *, steps=STEPS):
    generator = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.15)
    net.train()
    for _ in range(steps):
        loss, _ = net.loss(batch(generator, BATCH))
        optimizer.zero_grad()
        loss.sum().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return net.eval()


def trained():
    """The trained network in eval mode, ``requires_grad`` off as in a loaded checkpoint."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    path = CACHE / f"yolov8n-shapes-{key}.pt"
    net = build()
    if path.is_file():
        net.load_state_dict(torch.load(path, weights_only=True))
    else:
        train(net)
        CACHE.mkdir(exist_ok=True)
        (CACHE / ".gitignore").write_text("*\n", encoding="utf-8")
        partial = path.with_suffix(f".{os.getpid()}")  # another process may be training too
        torch.save(net.state_dict(), partial)
        partial.replace(path)
    return net.eval().requires_grad_(False)
