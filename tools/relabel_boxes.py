"""Label images again with the detector that was trained on their pseudo boxes (second round).

    python tools/relabel_boxes.py CONFIG CHECKPOINT work_dirs/boxes --out work_dirs/boxes_round2

CONFIG and CHECKPOINT are the detector, STORE is the folder of the boxes. The detections with the
class of the image are merged with the boxes of the store. The result is a store as well, to train
on. The same command resumes an interrupted run.
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
    add = parser.add_argument
    add("config", help="mmdet config of the detector, with a test pipeline")
    add("checkpoint", help="weights of the detector: file or URL")
    add("store", help="folder of the boxes that it was trained on")
    add("--out", required=True, help="folder to write")
    add("--images", help="folder of the images; default: that of the store")
    score, overlap = MergeRule.min_score, MergeRule.max_overlap
    bad, timeout = Execution.max_bad_fraction, Execution.read_timeout
    add(
        "--min-score", type=float, default=score, help="of detections besides the best: %(default)s"
    )
    add("--max-overlap", type=float, default=overlap, help="IoU of kept old boxes: %(default)s")
    add("--batch-size", type=int, default=1, help="images per batch; default: %(default)s")
    add("--workers", type=int, help="reading processes per rank; default: by the number of cores")
    add("--max-bad-fraction", type=float, default=bad, help="of failed images: %(default)s")
    add("--read-timeout", type=float, default=timeout, help="seconds to read an image: %(default)s")
    add("--retry-failed", action="store_true", help="retry failed images")
    add("--no-coco", action="store_true", help="do not write annotations.json")
    add("--no-tf32", action="store_true", help="do not use TF32 on a GPU")
    add("--device", help="cpu, cuda, cuda:N; default: cuda if available")
    add("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    add("--cfg-options", nargs="+", action=DictAction, default={})
    add("--local-rank", "--local_rank", type=int, default=0)
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
