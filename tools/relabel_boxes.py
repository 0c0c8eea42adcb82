"""Label the images of pseudo boxes again by the detector that was trained on them (second round).

    python tools/relabel_boxes.py CONFIG CHECKPOINT work_dirs/boxes --out work_dirs/boxes_round2

CONFIG and CHECKPOINT are of the detector, STORE is the folder of the boxes. The detector's boxes
of each image's own class are merged with those of the store; the result is a store, to train from
as from the first. The same command goes on where an earlier one was ended.
Several processes: torchrun --nproc-per-node N tools/relabel_boxes.py … --launcher pytorch
"""

import argparse
import os
import sys

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.launch import init_processes
from dap.pseudo_boxes import Execution
from dap.ranks import end_group
from dap.self_training import MergeRule, relabel_boxes


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="mmdet config of the detector, with a test pipeline")
    parser.add_argument("checkpoint", help="its weights: file or URL")
    parser.add_argument("store", help="folder of the boxes that it was trained on")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--images", help="folder of the images; default: that of the store")
    rule, defaults = MergeRule(), Execution()
    for flag, kind, default, text in (
        ("--min-score", float, rule.min_score, "of detections that stay beside the best one"),
        ("--max-overlap", float, rule.max_overlap, "IoU up to which boxes of the store stay"),
        ("--batch-size", int, 1, "images at a time, padded to one size"),
        ("--workers", int, None, "processes that read, per rank; default: by the cores"),
        ("--max-bad-fraction", float, defaults.max_bad_fraction, "share of images that may fail"),
        ("--read-timeout", float, defaults.read_timeout, "seconds until reading counts as hung"),
    ):
        text += "" if default is None else "; default: %(default)s"
        parser.add_argument(flag, type=kind, default=default, help=text)
    parser.add_argument("--retry-failed", action="store_true", help="try failed images again")
    parser.add_argument("--no-coco", action="store_true", help="write no annotations.json")
    parser.add_argument("--no-tf32", action="store_true", help="compute on a GPU without TF32")
    parser.add_argument("--device", help="cpu, cuda, cuda:N; default: cuda if there is any")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Run the second round."""
    args = parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options)
        if args.launcher != "none":
            init_processes(args.launcher)
        MMLogger.get_instance("dap", logger_name="dap")
        execution = Execution(
            num_workers=args.workers,
            batch_size=args.batch_size,
            max_bad_fraction=args.max_bad_fraction,
            retry_failed=args.retry_failed,
            read_timeout=args.read_timeout,
            coco=not args.no_coco,
            tf32=not args.no_tf32,
        )
        rule = MergeRule(args.min_score, args.max_overlap)
        relabel_boxes(
            config,
            args.checkpoint,
            args.store,
            args.out,
            args.images,
            rule,
            execution,
            args.device,
        )
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    if torch.distributed.is_initialized():
        end_group()


if __name__ == "__main__":
    main()
