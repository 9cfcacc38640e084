"""``cam-callbacks sanity``: do the maps change when the model forgets?"""

from __future__ import annotations

import argparse
from pathlib import Path

from cam_callbacks.cli.arguments import CommandError, add_model, model_of
from cam_callbacks.text_table import table


def add_sanity(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its arguments."""
    sanity = commands.add_parser(
        "sanity",
        help="do the maps change when the model forgets? (cascading randomisation)",
        description="Make the model's layers random from the output backwards and print how far the maps drift (Jensen-Shannon, "
        "0 to 1). Drift must rise: maps that stay show the image and not what the model learned.",
    )
    add_model(sanity)
    sanity.add_argument("images", nargs="+", metavar="IMAGE", help="a picture, a folder of them, or a quoted glob")
    sanity.add_argument(
        "--method", nargs="+", default=["eigencam", "gradcam"], metavar="NAME", help="(default: eigencam gradcam)"
    )
    sanity.add_argument("--layer", nargs="+", metavar="NAME", help="as 'cam-callbacks layers' lists them")
    sanity.set_defaults(command=run_sanity)


def run_sanity(args: argparse.Namespace) -> int:
    """``cam-callbacks sanity``."""
    import torch
    from PIL import Image

    from cam_engine.explanation.reading import paths_of
    from cam_engine.loading import load_model
    from cam_engine.metrics.sanity import cascading_randomisation

    model, settings = model_of(args)
    loaded = load_model(model, **settings)
    paths = [path for image in args.images for path in paths_of(image) or [Path(image)]]
    try:
        images = torch.cat([loaded.prepare(Image.open(path).convert("RGB"))[0] for path in paths]).to(args.device)
        stages = cascading_randomisation(loaded.net, images, None, args.method, args.layer or "auto")
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CommandError(f"{args.model}: {error} (--size brings pictures to one size)") from error
    head = ["random from the output to", *stages[0].drift]
    rows = [[stage.layer, *(f"{drift:.3f}" for drift in stage.drift.values())] for stage in stages]
    print("\n".join(table([head, *rows], align="<>")))
    return 0
