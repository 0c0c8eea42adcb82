"""Turn a classification data set into a COCO detection set (DAP, Step 2).

    python tools/generate_pseudo_boxes.py CONFIG CHECKPOINT --out work_dirs/boxes
    python tools/generate_pseudo_boxes.py CONFIG CHECKPOINT --images my/folders --out …

CONFIG is an mmpretrain config: its classifier and the dataset of its train_dataloader are used.
Several processes: torchrun --nproc-per-node N tools/generate_pseudo_boxes.py … --launcher pytorch
"""

import argparse
import os
import sys

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.cam import RULES
from dap.launch import init_processes
from dap.pseudo_boxes import generate_from_config


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
    parser.add_argument("--workers", type=int, default=2, help="processes that read, per rank")
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
        if args.rule:
            config.merge_from_dict({"pseudo_boxes.rule": args.rule})
        if args.launcher != "none":
            init_processes(args.launcher)
        MMLogger.get_instance("dap", logger_name="dap")
        generate_from_config(
            config, args.checkpoint, args.out, args.images, args.classes, args.workers, args.device
        )
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
