"""``cam-callbacks replay``: records from checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from cam_callbacks.cli.arguments import CommandError, at_least_one


def add_replay(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command and its arguments."""
    replay = commands.add_parser(
        "replay",
        help="the same records from checkpoints already saved, after the fact",
        description="Look through every checkpoint of a training and write the records that the callback would have written.",
        epilog="example:\n"
        "  cam-callbacks replay checkpoints/ --model project.net:make --probe photos/ --size 224 -o looks\n"
        "  cam-callbacks compare looks\n"
        "on several processes: torchrun --nproc-per-node 8 -m cam_callbacks.cli replay …, or --shard 3/16 in the third of 16 jobs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="files in order, or a folder of them")
    replay.add_argument(
        "--model", required=True, metavar="MODEL", help="package.module:name of the model or its factory"
    )
    replay.add_argument("--probe", required=True, type=Path, metavar="FOLDER", help="pictures, one sub-folder a class")
    replay.add_argument("--size", type=at_least_one, metavar="N", help="side of the model's input")
    replay.add_argument("--mean", type=float, nargs="+", metavar="X", help="of the images in [0, 1], taken off")
    replay.add_argument("--std", type=float, nargs="+", metavar="X", help="of the images, divided by")
    replay.add_argument(
        "--images", type=at_least_one, metavar="N", help="how many, balanced over classes (default: all)"
    )
    replay.add_argument(
        "--method", nargs="+", default=["eigencam", "gradcam"], metavar="NAME", help="(default: %(default)s)"
    )
    replay.add_argument(
        "--layer", nargs="+", default="auto", metavar="NAME", help="as 'cam-callbacks layers' lists them"
    )
    replay.add_argument(
        "-o", "--output", type=Path, default=Path("looks"), metavar="FOLDER", help="(default: %(default)s)"
    )
    replay.add_argument(
        "--shard",
        metavar="K/N",
        help="look at a share of the checkpoints, the K-th of N, and let the last process write the records (default: all, or "
        "what torchrun says)",
    )
    replay.set_defaults(command=run_replay)


def run_replay(args: argparse.Namespace) -> int:
    """``cam-callbacks replay``."""
    from cam_callbacks import ProbeSet
    from cam_callbacks.replaying import Shard, replay
    from cam_engine.loading import import_model

    try:
        shard = Shard.of_launcher() if args.shard is None else Shard.parse(args.shard)
        probe = ProbeSet.from_folder(args.probe, args.images, size=args.size, mean=args.mean, std=args.std)
        records = replay(
            import_model(args.model),
            args.checkpoints,
            probe,
            folder=args.output,
            shard=shard,
            methods=args.method,
            layers=args.layer,
        )
    except (ImportError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    if not records:
        print(f"shard {shard} is done; the last one writes the records, or the same command without --shard")
        return 0
    for record in records:
        drift = ", ".join(f"{k} {v:.3f}" for k, v in record.metrics.items() if k.startswith("cam/drift_ref/"))
        print(f"look {record.look}, epoch {record.epoch}, step {record.step}: {drift}")
    print(f"records: {args.output.resolve()}")
    return 0
