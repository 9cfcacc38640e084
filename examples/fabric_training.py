"""Lightning Fabric, watched: handwritten digits, three epochs, records, TensorBoard and an MLflow run.

python examples/fabric_training.py --folder out
tensorboard --logdir out
"""

import argparse

import torch
from digits_data import digits, network
from lightning.fabric import Fabric
from mlflow.tracking import MlflowClient
from torch import nn
from torch.utils.data import DataLoader

from cam_callbacks import ProbeSet
from cam_callbacks.loop import CAMLoop


def main(folder: str, epochs: int = 3) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    fabric.seed_everything(0)
    train, held_out = digits()
    model = network()
    model, optimizer = fabric.setup(model, torch.optim.Adam(model.parameters(), 1e-3))
    loader = fabric.setup_dataloaders(DataLoader(train, 64, shuffle=True))
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("fabric", artifact_location=f"{folder}/artifacts")
    run_id = client.create_run(experiment).info.run_id
    probe = ProbeSet.from_dataset(held_out, n=8)
    with CAMLoop(probe, f"{folder}/cam", tensorboard=folder, mlflow=run_id, tracking_uri=uri) as watch:
        for epoch in range(epochs):
            model.train()
            for images, labels in loader:
                optimizer.zero_grad()
                fabric.backward(nn.functional.cross_entropy(model(images), labels))
                optimizer.step()
            watch.look(model.module, epoch)  # on every process: each explains its share of the images
    client.set_terminated(run_id)
    fabric.print(f"{len(watch.store)} looks in {watch.store.folder}; MLflow run {run_id} in {uri}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="fabric_out")
    main(parser.parse_args().folder)
