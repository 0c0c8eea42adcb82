"""Turn a classification data set into a COCO detection set (DAP, Step 2).

    python tools/generate_pseudo_boxes.py CONFIG CHECKPOINT --out work_dirs/boxes
    python tools/generate_pseudo_boxes.py CONFIG CHECKPOINT --images my/folders --out …

CONFIG is an mmpretrain config: its classifier and the dataset of its train_dataloader are used. Or
it names a classifier of another library, whose data are then those of --images:
timm:convnext_tiny.fb_in1k, torchvision:resnet50, huggingface:FOLDER. Nothing is downloaded.
The same command goes on where an earlier one was ended; finished shards are kept.
Several processes: torchrun --nproc-per-node N tools/generate_pseudo_boxes.py … --launcher pytorch
"""

import argparse
import os
import sys

# torch reads these once, at its first allocation. On a CPU large pages for feature maps are a tenth
# faster; on a GPU segments that can grow keep batches of many sizes from fragmenting the memory.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Torch has another name for this variable since 2.9.
if not os.environ.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
    os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

import dap  # noqa: F401  (checks versions, lets checkpoints load)
from dap.cam import RULES
from dap.classifiers.libraries import classifier_config
from dap.classifiers.methods import METHODS
from dap.launch import init_processes
from dap.pseudo_boxes import Execution, generate_from_config
from dap.pseudo_boxes.settings import AUTOCAST, with_changes
from dap.ranks import end_group
from dap.visualization.box_pictures import BoxPictures

RULE_HELP = (
    "extent (default): extents of the map's components at multiples of the map's own threshold "
    "by Otsu; paper: the paper's moments at values of tau; release: as the official release does. "
    "Thresholds of a config that the rule would read in another way are replaced by its default"
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="mmpretrain config, or timm:NAME, torchvision:NAME …")
    parser.add_argument("checkpoint", help="its weights: file or URL")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--images", help="folder of class folders, in place of the config's data")
    parser.add_argument("--classes", help="names of its class folders in label order, one a line")
    parser.add_argument("--rule", choices=RULES, help=RULE_HELP)
    parser.add_argument("--map-method", choices=METHODS, help="default: exact if there is one")
    parser.add_argument("--masks", action="store_true", help="give each box its component's mask")
    parser.add_argument("--autocast", choices=tuple(AUTOCAST), help="half precision, on a GPU")
    defaults = Execution()
    for flag, kind, default, text in (
        ("--workers", int, None, "processes that read, per rank; default: by the cores"),
        ("--batch-size", int, None, "images of 4:3 at a time; default: 32 on a GPU, 1 on a CPU"),
        ("--max-bad-fraction", float, defaults.max_bad_fraction, "share of images that may fail"),
        ("--read-timeout", float, defaults.read_timeout, "seconds until reading counts as hung"),
        ("--shard-size", int, None, "images per shard; default: by their number"),
    ):
        parser.add_argument(flag, type=kind, default=default, help=text)
    for flag, text in (
        ("--retry-failed", "try images again that failed before"),
        ("--keep-going", "go on even if the first boxes are worthless"),
        ("--no-normalization", "the classifier was trained on pixels of 0 to 255"),
        ("--no-coco", "leave annotations.json to tools/convert_annotations.py"),
        ("--no-tf32", "compute float32 on a GPU without TF32"),
    ):
        parser.add_argument(flag, action="store_true", help=text)
    parser.add_argument("--device", help="cpu, cuda, cuda:N; default: cuda if there is any")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0)
    return parser.parse_args()


def merge_options(config: Config, options: dict[str, object], flags: dict[str, object]) -> None:
    """Merge ``--cfg-options`` and flags; settings of Step 2 as :func:`with_changes` does it."""
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
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    try:
        config = classifier_config(args.config, args.checkpoint)
        given = {name: getattr(args, name) for name in ("rule", "autocast", "map_method", "masks")}
        merge_options(config, args.cfg_options, given)
        if args.launcher != "none":
            init_processes(args.launcher)
        MMLogger.get_instance("dap", logger_name="dap")
        execution = Execution(
            num_workers=args.workers,
            batch_size=args.batch_size,
            max_bad_fraction=args.max_bad_fraction,
            retry_failed=args.retry_failed,
            read_timeout=args.read_timeout,
            shard_size=args.shard_size,
            keep_going=args.keep_going,
            coco=not args.no_coco,
            tf32=not args.no_tf32,
        )
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
