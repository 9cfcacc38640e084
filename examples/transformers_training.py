"""A training with transformers.Trainer, watched: a small ResNet on handwritten digits, three epochs.

python examples/transformers_training.py --folder out
tensorboard --logdir out/tensorboard
"""

import argparse

from digits_data import digits
from torch.utils.data import TensorDataset
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments, set_seed

from cam_callbacks import ProbeSet
from cam_callbacks.transformers import CAMTrainerCallback


def items(data: TensorDataset) -> list[dict]:
    return [{"pixel_values": image, "labels": label} for image, label in data]


def main(folder: str, epochs: int = 3) -> None:
    set_seed(0)
    train, held_out = digits()
    model = ResNetForImageClassification(
        ResNetConfig(
            num_channels=1, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=10
        )
    )
    watch = CAMTrainerCallback(
        ProbeSet.from_dataset(held_out, n=8), methods="gradcam", tensorboard=f"{folder}/tensorboard"
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=64, eval_strategy="epoch",
            save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
        ),
        train_dataset=items(train),
        eval_dataset=items(held_out),
        callbacks=[watch],
    )  # fmt: skip
    trainer.train()
    print(f"{len(watch.store)} looks in {watch.store.folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="transformers_out")
    main(parser.parse_args().folder)
