"""Label images again with the detector that was trained on their pseudo boxes (second round).

    python tools/relabel_boxes.py CONFIG CHECKPOINT work_dirs/boxes --out work_dirs/boxes_round2

CONFIG and CHECKPOINT are the detector, STORE is the folder of the boxes. The detections with the
class of the image are merged with the boxes of the store. The result is a store as well, to train
on. The same command resumes an interrupted run.
Several processes: torchrun --nproc-per-node N tools/relabel_boxes.py … --launcher pytorch
"""

import argparse
import sys

import torch
from mmengine.config import Config

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.ranks import end_group
from dap.runs.options import add_run_options, execution_from, start_processes
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
    add(
        "--min-score", type=float, default=score, help="of detections besides the best: %(default)s"
    )
    add("--max-overlap", type=float, default=overlap, help="IoU of kept old boxes: %(default)s")
    add("--batch-size", type=int, default=1, help="images per batch; default: %(default)s")
    add_run_options(parser)
    return parser.parse_args()


def main() -> None:
    """Run the second round."""
    args = parse_args()
    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options)
        start_processes(args)
        rule = MergeRule(args.min_score, args.max_overlap)
        relabel_boxes(
            config,
            args.checkpoint,
            args.store,
            args.out,
            args.images,
            rule,
            execution_from(args),
            args.device,
        )
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    if torch.distributed.is_initialized():
        end_group()


if __name__ == "__main__":
    main()
