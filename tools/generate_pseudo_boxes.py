"""Turn a classification data set into a COCO detection set (DAP, Step 2).

    python tools/generate_pseudo_boxes.py CONFIG CHECKPOINT --out work_dirs/boxes
    python tools/generate_pseudo_boxes.py CONFIG CHECKPOINT --images my/folders --out …

CONFIG is an mmpretrain config: its classifier and the dataset of its train_dataloader are used.
The same command goes on where an earlier one was ended; finished shards are kept.
Several processes: torchrun --nproc-per-node N tools/generate_pseudo_boxes.py … --launcher pytorch
"""

import argparse
import os
import sys

# Large pages for feature maps on a CPU, a tenth sooner; torch looks once, at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.cam import RULES
from dap.launch import init_processes
from dap.pseudo_boxes import Execution, generate_from_config
from dap.pseudo_boxes.settings import AUTOCAST
from dap.visualization.box_pictures import BoxPictures


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="mmpretrain config of the classifier")
    parser.add_argument("checkpoint", help="its weights: file or URL")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--images", help="folder of class folders, in place of the config's data")
    parser.add_argument("--classes", help="names of its class folders in label order, one a line")
    parser.add_argument("--rule", choices=RULES, help="the paper's rule or the official release's")
    parser.add_argument("--autocast", choices=tuple(AUTOCAST), help="half precision, on a GPU")
    defaults = Execution()
    for flag, kind, of, text in (
        ("--workers", int, defaults.num_workers, "processes that read, per rank"),
        ("--batch-size", int, None, "images at a time; default: 32 on a GPU, 1 on a CPU"),
        ("--max-bad-fraction", float, defaults.max_bad_fraction, "share of images that may fail"),
        ("--read-timeout", float, defaults.read_timeout, "seconds until reading counts as hung"),
        ("--shard-size", int, None, "images per shard; default: by their number"),
    ):
        parser.add_argument(flag, type=kind, default=of, help=text)
    parser.add_argument(
        "--retry-failed", action="store_true", help="try images again that failed before"
    )
    parser.add_argument("--device", help="cuda, cpu, …; default: cuda if there is any")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Run Step 2."""
    args = parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options)
        for name in ("rule", "autocast"):
            if value := getattr(args, name):
                config.merge_from_dict({f"pseudo_boxes.{name}": value})
        if args.launcher != "none":
            init_processes(args.launcher)
        MMLogger.get_instance("dap", logger_name="dap")
        execution = Execution(
            args.workers,
            args.batch_size,
            args.max_bad_fraction,
            args.retry_failed,
            args.read_timeout,
            args.shard_size,
        )
        generate_from_config(
            config, args.checkpoint, args.out, args.images, args.classes, execution, args.device,
            BoxPictures.from_config(config, args.out),
        )  # fmt: skip
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
