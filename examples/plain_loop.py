"""A plain PyTorch loop, watched: handwritten digits, three epochs, records and TensorBoard.

python examples/plain_loop.py --folder out
tensorboard --logdir out
"""

import argparse

import torch
from digits_data import digits, network
from torch import nn

from cam_callbacks import ProbeSet
from cam_callbacks.loop import CAMLoop


def main(folder: str, epochs: int = 3) -> None:
    torch.manual_seed(0)
    train, held_out = digits()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    probe = ProbeSet.from_dataset(held_out, n=8)
    with CAMLoop(probe, f"{folder}/cam", tensorboard=folder) as watch:
        for epoch in range(epochs):
            model.train()
            for images, labels in torch.utils.data.DataLoader(train, 64, shuffle=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                accuracy = (model(held_out.tensors[0]).argmax(1) == held_out.tensors[1]).float().mean().item()
            record = watch.look(model, epoch, metrics={"accuracy": accuracy})
            if record is not None:
                print(f"epoch {epoch}: accuracy {accuracy:.2f}, drift {record.metrics['cam/drift_ref/gradcam']:.3f}")
    print(f"{len(watch.store)} looks in {watch.store.folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="plain_out")
    main(parser.parse_args().folder)
