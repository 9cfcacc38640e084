"""``cam-callbacks layers``: what --layer and layers= take."""

from __future__ import annotations

import argparse
from typing import Any

from cam_callbacks.cli.arguments import CommandError, add_model, model_of
from cam_callbacks.text_table import table


def add_layers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its arguments."""
    layers = commands.add_parser(
        "layers",
        help="layers that can be explained",
        description="List the layers with a spatial grid, in the order in which they run: what --layer and layers= take. Those "
        "that are taken where none is named are marked.",
    )
    add_model(layers)
    layers.set_defaults(command=run_layers)


def run_layers(args: argparse.Namespace) -> int:
    """``cam-callbacks layers``."""
    from cam_engine import available_layers
    from cam_engine.loading import example, load_model

    model, settings = model_of(args)
    try:
        loaded = load_model(model, **settings)
        image = example(loaded).to(args.device)
        infos = available_layers(loaded.net, image)
        default = default_layers(loaded, image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CommandError(f"{args.model}: {error} (--size sets another size of input)") from error
    friendly = {dotted: name for name, dotted in loaded.friendly.items()}
    head = ("name", *(["friendly name"] if friendly else []), "type", "shape", "stride", "grid", "")
    rows = [
        (i.name, *([friendly.get(i.name, "")] if friendly else []), i.type, "×".join(map(str, i.shape)), str(i.stride),
         f"{i.grid[0]}×{i.grid[1]}", "<- auto" if i.name in default else "")
        for i in infos
    ]  # fmt: skip
    print("\n".join(line.rstrip() for line in table([head, *rows])))
    return 0


def default_layers(loaded: Any, image: Any) -> list[str]:
    """What ``explain`` takes without ``--layer``: all inputs of a detector's head, else what ``"auto"`` picks."""
    from cam_engine import CAM
    from cam_engine.detect import family_of

    try:
        return family_of(loaded.net).layers()
    except TypeError:
        cam = CAM(loaded.net, "gradcam", output=loaded.output)
        return list(cam.resolve(cam.prepare(image)))
