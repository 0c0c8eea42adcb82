"""Generate pseudo boxes: from a classification set to a COCO detection set (DAP, Step 2).

    python tools/generate_pseudo_boxes.py CONFIG CHECKPOINT --out work_dirs/boxes
    python tools/generate_pseudo_boxes.py CONFIG CHECKPOINT --images my/folders --out …

CONFIG is an mmpretrain config; its classifier and the dataset of its train_dataloader are used. It
can also be a classifier of another library, together with --images:
timm:convnext_tiny.fb_in1k, torchvision:resnet50, huggingface:FOLDER. Nothing is downloaded.
The same command resumes an interrupted run; finished shards are kept.
Several processes: torchrun --nproc-per-node N tools/generate_pseudo_boxes.py … --launcher pytorch
"""

import argparse
import os
import sys

# torch reads these once, at its first allocation. Large pages make the CPU 10 % faster; expandable
# segments avoid fragmentation of GPU memory by batches of many sizes.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Since torch 2.9, this variable has another name.
if not os.environ.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
    os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"

import torch
from mmengine.config import Config

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.cam import RULES
from dap.classifiers.libraries import classifier_config
from dap.classifiers.methods import METHODS
from dap.pseudo_boxes import generate_from_config
from dap.pseudo_boxes.settings import AUTOCAST, with_changes
from dap.ranks import end_group
from dap.runs.options import add_run_options, execution_from, start_processes
from dap.visualization.box_pictures import BoxPictures

RULE_HELP = (
    "extent (default): extents of components at multiples of the map's Otsu threshold; paper: the "
    "moments of the paper at values of tau; release: like the official release. If the thresholds "
    "of the config have another meaning under the rule, they are replaced by its default"
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("config", help="mmpretrain config, or timm:NAME, torchvision:NAME …")
    add("checkpoint", help="weights of the classifier: file or URL")
    add("--out", required=True, help="folder to write")
    add("--images", help="folder of class folders, instead of the config's data")
    add("--classes", help="file with the class folders in label order, one per line")
    add("--rule", choices=RULES, help=RULE_HELP)
    add("--map-method", choices=METHODS, help="default: exact if possible")
    add("--masks", action="store_true", help="write the mask of each box's component")
    add("--autocast", choices=tuple(AUTOCAST), help="half precision on a GPU")
    add("--batch-size", type=int, help="images of 4:3 per batch; default: 32 on a GPU, 1 on a CPU")
    add("--shard-size", type=int, help="images per shard; default: by the number of images")
    add("--keep-going", action="store_true", help="continue if the check of the first boxes fails")
    add("--no-normalization", action="store_true", help="the classifier expects pixels in 0-255")
    add_run_options(parser)
    return parser.parse_args()


def merge_options(config: Config, options: dict[str, object], flags: dict[str, object]) -> None:
    """Merge ``--cfg-options`` and flags; settings of Step 2 are merged by :func:`with_changes`."""
    fields = dict(config.get("pseudo_boxes", {}))
    config.merge_from_dict(options)
    prefix = "pseudo_boxes."
    changes = {name[len(prefix) :]: options[name] for name in options if name.startswith(prefix)}
    changes |= {name: value for name, value in flags.items() if value}
    if changes:
        config.pseudo_boxes = with_changes(fields, changes)


def main() -> None:
    """Run Step 2."""
    args = parse_args()
    try:
        config = classifier_config(args.config, args.checkpoint)
        flags = {name: getattr(args, name) for name in ("rule", "autocast", "map_method", "masks")}
        merge_options(config, args.cfg_options, flags)
        start_processes(args)
        execution = execution_from(args, shard_size=args.shard_size, keep_going=args.keep_going)
        generate_from_config(
            config,
            args.checkpoint,
            args.out,
            args.images,
            args.classes,
            execution,
            args.device,
            BoxPictures.from_config(config, args.out),
            normalized=not args.no_normalization,
        )
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    if torch.distributed.is_initialized():
        end_group()


if __name__ == "__main__":
    main()
