"""Take detectors of MMDetection through Steps 3 and 4 on tiny data, and write what moved.

    python tools/benchmarks/detectors.py run --results detectors.jsonl
    python tools/benchmarks/detectors.py run --results detectors.jsonl --only rtmdet
    python tools/benchmarks/detectors.py table --results detectors.jsonl --out docs/detectors.md

tools/new_config.py writes the configs of each detector. Its full model is pre-trained for two
iterations on boxes of 3 classes, extracted, and fine-tuned for two iterations on a set of 2 classes
as DAP and as CLS, with validation, on a CPU: images and batches are small, and weights are random.
The results file is appended to, and detectors that are in it are not run again. One process per
detector, forked, so that imports are paid once.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

BOTH = {"masks": True, "box_masks": True}  # of the data to fine-tune on, and of the boxes
# Name in the table → config, options of new_configs, side of the images in pixels.
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "Faster R-CNN, R-50": ("faster-rcnn_r50_fpn_1x_coco", {}, 96),
    "Cascade R-CNN, R-50": ("cascade-rcnn_r50_fpn_1x_coco", {}, 96),
    "Mask R-CNN, R-50": ("mask-rcnn_r50_fpn_1x_coco", {"masks": True}, 96),
    "Mask R-CNN, R-50, boxes alone": ("mask-rcnn_r50_fpn_1x_coco", {}, 96),
    "Mask R-CNN, R-50, boxes with masks": ("mask-rcnn_r50_fpn_1x_coco", BOTH, 96),
    "RTMDet-Ins-tiny, boxes with masks": ("rtmdet-ins_tiny_8xb32-300e_coco", BOTH, 96),
    "RetinaNet, R-50": ("retinanet_r50_fpn_1x_coco", {}, 96),
    "FCOS, R-50": ("fcos_r50-caffe_fpn_gn-head_1x_coco", {}, 96),
    "ATSS, R-50": ("atss_r50_fpn_1x_coco", {}, 96),
    "GFL, R-50": ("gfl_r50_fpn_1x_coco", {}, 96),
    "TOOD, R-50": ("tood_r50_fpn_1x_coco", {}, 96),
    "RTMDet-tiny, CSPNeXt": ("rtmdet_tiny_8xb32-300e_coco", {}, 96),
    "RTMDet-s, CSPNeXt": ("rtmdet_s_8xb32-300e_coco", {}, 96),
    "YOLOX-tiny, CSPDarknet": ("yolox_tiny_8xb8-300e_coco", {}, 96),
    "CenterNet, R-18": ("centernet_r18_8xb16-crop512-140e_coco", {}, 128),
    "DETR, R-50": ("detr_r50_8xb2-150e_coco", {}, 96),
    "Deformable DETR, R-50": ("deformable-detr_r50_16xb2-50e_coco", {}, 96),
    "DAB-DETR, R-50": ("dab-detr_r50_8xb2-50e_coco", {}, 96),
    "DINO, R-50": ("dino-4scale_r50_8xb2-12e_coco", {}, 256),
    "Sparse R-CNN, R-50": ("sparse-rcnn_r50_fpn_1x_coco", {}, 96),
    "RetinaNet, Swin-T": ("retinanet_swin-t-p4-w7_fpn_1x_coco", {}, 96),
    "Mask R-CNN, Swin-T": ("mask-rcnn_swin-t-p4-w7_fpn_1x_coco", {"masks": True}, 96),
    "Mask R-CNN, ConvNeXt-T": (
        "mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco",
        {"masks": True},
        96,
    ),
    "Faster R-CNN, EfficientNet-lite0 of timm": (
        "faster-rcnn_r50_fpn_1x_coco",
        {"backbone": "timm:tf_efficientnet_lite0"},
        96,
    ),
    "RTMDet-tiny, ConvNeXt-A of timm": (
        "rtmdet_tiny_8xb32-300e_coco",
        {"backbone": "timm:convnext_atto"},
        96,
    ),
    "DINO, ResNet-18 of timm": (
        "dino-4scale_r50_8xb2-12e_coco",
        {"backbone": "timm:resnet18"},
        256,
    ),
}
ITERATIONS = 2
# Boxes before and behind NMS and sampled regions, which change the time alone.
LIMITS = {"nms_pre": 200, "max_per_img": 50, "num": 64}


def make_data(folder: Path) -> dict[str, Path]:
    """Write boxes to pre-train on, and a detection set, each with outlines and without."""
    from dap.testing import make_coco

    boxes = make_coco(folder / "boxes", images=8, seed=1)
    train = make_coco(folder / "train", images=5, classes=("cat", "dog"), seed=2)
    data = {"boxes": boxes, "train": train}
    for name, path in (("box_masks", boxes), ("masks", train)):
        content = json.loads(path.read_text())
        for item in content["annotations"]:
            x, y, w, h = item["bbox"]
            item["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        data[name] = path.with_name(f"{name}.json")
        data[name].write_text(json.dumps(content))
    return data


def prove(name: str, folder: Path, data: dict[str, Path]) -> dict[str, Any]:
    """Run one detector of the table; give what moved."""
    config, options, side = CASES[name]
    options = dict(options)
    target = data["masks" if options.pop("masks", False) else "train"]
    boxes = data["box_masks" if options.pop("box_masks", False) else "boxes"]
    if "backbone" in options:
        options["weights"] = timm_weights(folder, options["backbone"].removeprefix("timm:"))
    return {"name": name, **prove_config(config, boxes, target, folder, side, options)}


def prove_config(
    config: str, boxes: Path, target: Path, folder: Path, side: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Take a detector through both steps; give what moved by the transfer's own report.

    Raises:
        RuntimeError: If a loss is not finite, or another thing moved than was said.
    """
    from mmengine.config import Config

    import dap.hooks  # noqa: F401
    from dap.new_config import new_configs
    from dap.transfer import extract_detector

    recipe = new_configs(
        config, boxes, target, target, folder / "configs",
        work_dirs=str(folder / "work_dirs"), **options,
    )  # fmt: skip
    seconds = {}
    losses = {}
    pretrain = small(Config.fromfile(recipe.pretrain), side)
    losses["pretrain"], seconds["pretrain"], _ = train(pretrain)
    written = Path(pretrain.work_dir) / f"iter_{ITERATIONS}.pth"
    extracted = extract_detector(written, folder / "weights")
    cls, dap_config = (small(Config.fromfile(path), side) for path in recipe.finetune)
    losses["cls"], seconds["cls"], _ = train(cls)
    dap_config.model.init_cfg.checkpoint = str(extracted)
    losses["dap"], seconds["dap"], reports = train(dap_config)
    report, said = reports[0], recipe.report
    if said is None or set(report.loaded) != set(said.loaded):
        raise RuntimeError("another thing moved than was said")
    bad = [key for key, loss in losses.items() if not math.isfinite(loss)]
    if bad:
        raise RuntimeError(f"the loss is not finite: {losses}")
    return {
        "config": config,
        "parts": per_part(said),
        "new": list(said.category_dependent),
        "missing": list(said.missing),
        "unexpected": list(said.unexpected),
        "losses": losses,
        "seconds": seconds,
    }


def timm_weights(folder: Path, name: str) -> Path:
    """Write random weights of a timm classifier, as a file of weights that someone has."""
    import timm
    from safetensors.torch import save_file

    path = folder / f"{name}.safetensors"
    save_file(timm.create_model(name).state_dict(), path)
    return path


def small(config: Any, side: int) -> Any:
    """Make a config run on a CPU in seconds, its model as it is."""
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.update(
            num_workers=0, persistent_workers=False, pin_memory=False, prefetch_factor=None
        )
        for node in walk(loader):
            _shrink(node, side)
    config.train_dataloader.batch_size = 2
    config.val_dataloader.batch_size = 1
    if config.val_dataloader.dataset.get("part") is None:
        config.val_dataloader.dataset.indices = 2
    config.test_dataloader = config.test_evaluator = config.test_cfg = None
    config.train_cfg.update(max_iters=ITERATIONS, val_interval=ITERATIONS)
    config.default_hooks.checkpoint.update(interval=ITERATIONS, save_optimizer=False)
    if config.default_hooks.visualization.type == "dap.ValidationPicturesHook":
        config.default_hooks.visualization.num_images = 1
    config.default_hooks.logger.interval = 1
    for node in walk(config.model):
        start = node.get("init_cfg")
        if isinstance(start, dict) and "://" in str(start.get("checkpoint")):
            node["init_cfg"] = None  # nothing is downloaded
        for key, most in LIMITS.items():
            if isinstance(node.get(key), int):
                node[key] = min(node[key], most)
    if config.optim_wrapper.type == "AmpOptimWrapper":  # needs a GPU
        config.optim_wrapper.type = "OptimWrapper"
        config.optim_wrapper.pop("loss_scale", None)
        config.optim_wrapper.pop("dtype", None)
    config.randomness = {"seed": 0}
    config.log_level = "ERROR"
    return config


def walk(node: Any) -> Iterator[Any]:
    """Yield all dicts in a tree of dicts and lists."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list | tuple):
            yield from walk(child)


def _shrink(step: Any, side: int) -> None:
    """Let a step of a pipeline make small images."""
    double = step.get("type") == "RandomResize" and "ratio_range" in step
    for key in ("scale", "img_scale", "crop_size", "size"):
        if isinstance(step.get(key), list | tuple):
            step[key] = (side * (1 + double),) * 2
    if "scales" in step:
        step["scales"] = [(2 * side, side // 2), (2 * side, side)]
    if step.get("type") == "RandomAffine":
        step["border"] = (-side // 2, -side // 2)
    if "max_cached_images" in step:
        step["max_cached_images"] = 4


def train(config: Any) -> tuple[float, float, list[Any]]:
    """Train; give the last loss, the seconds, and the reports of transfers."""
    from mmengine.logging import MMLogger
    from mmengine.runner import Runner

    from dap.transfer import PretrainedDetector

    reports = []
    load = PretrainedDetector.__call__

    def recorded(self: Any, module: Any) -> Any:
        reports.append(load(self, module))
        return reports[-1]

    start = time.time()
    PretrainedDetector.__call__ = recorded  # type: ignore[method-assign]
    try:
        config.experiment_name = f"{Path(config.work_dir).name}_{time.time_ns()}"
        runner = Runner.from_cfg(config)
        runner.train()
        loss = runner.message_hub.get_scalar("train/loss").current()
    finally:
        PretrainedDetector.__call__ = load  # type: ignore[method-assign]
        MMLogger.get_current_instance().handlers.clear()
    return float(loss), round(time.time() - start, 1), reports


def per_part(report: Any) -> dict[str, int]:
    """Number of tensors that moved, per module of the detector."""
    from dap.transfer.report import part_of

    counts: dict[str, int] = {}
    for name in report.loaded:
        part = part_of(name, report.parts)
        counts[part] = counts.get(part, 0) + 1
    return counts


def run(args: argparse.Namespace) -> None:
    """Run what is not in the results yet, one process each."""
    import_all()
    results = Path(args.results)
    lines = results.read_text().splitlines() if results.is_file() else []
    known = {json.loads(line)["name"] for line in lines}
    for name in CASES:
        if name in known or args.only.lower() not in name.lower():
            continue
        result = in_process(name)
        with open(results, "a") as file:
            file.write(json.dumps(result) + "\n")
        print(name, result.get("error") or result["seconds"], flush=True)


def import_all() -> None:
    """Import what the processes need, before they are forked."""
    import mmdet.apis
    import mmdet.engine  # noqa: F401
    import mmpretrain.models  # noqa: F401

    import dap.new_config  # noqa: F401

    leave_out_the_slow(setattr)


def leave_out_the_slow(replace: Callable[[Any, str, Any], None]) -> None:
    """Leave out what takes most of the time.

    After each module that it initialises, mmengine takes the mean of all parameters: minutes for a
    DINO. It formats a config's text five times per training: 20 seconds.

    Args:
        replace: ``setattr``, or that of a test, which is undone.
    """
    from mmengine.config import config as mmengine_config
    from mmengine.model import base_module, weight_init

    import dap.transfer.pretrained_detector as pretrained

    for module in (base_module, weight_init, pretrained):
        replace(module, "update_init_info", lambda *args, **kwargs: None)
    replace(mmengine_config, "FormatCode", lambda text, **kwargs: (text, True))


def in_process(name: str) -> dict[str, Any]:
    """Run one detector in a forked process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(name, sender))
    process.start()
    sender.close()
    try:
        result: dict[str, Any] = receiver.recv()
    except EOFError:
        result = {"name": name, "error": "the process ended without a result"}
    process.join()
    return result


def _send(name: str, sender: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            sender.send(prove(name, Path(folder), make_data(Path(folder))))
        except Exception as error:  # noqa: BLE001 - reported as the result of this detector
            trace = traceback.format_exc()
            sender.send({"name": name, "error": f"{type(error).__name__}: {error}", "trace": trace})


def table(args: argparse.Namespace) -> None:
    """Write the page of the results."""
    import mmdet
    import torch

    lines = Path(args.results).read_text().splitlines()
    results = {result["name"]: result for result in map(json.loads, lines)}
    rows = [_row(results[name]) for name in CASES if name in results]
    page = PAGE.format(mmdet=mmdet.__version__, torch=torch.__version__, rows="\n".join(rows))
    Path(args.out).write_text(page)


PAGE = """# Detectors

`tools/new_config.py` writes the configs of Steps 3 and 4 for a detector of MMDetection, or for a
config of your own. The detectors below were tested in both steps: configured by the tool,
pre-trained for two iterations on boxes of 3 classes, extracted, and fine-tuned for two iterations
on 2 classes as DAP and as CLS, with validation, on a CPU with MMDetection {mmdet} and torch
{torch}. The models have their full size, but images are small and weights are random: the test
shows that the steps run and which layers are transferred, not how much the pre-training helps.
The page is written by `tools/benchmarks/detectors.py`.

"Transferred" is the number of parameters and buffers of each module that the fine-tuning loads from
the pre-training. "New" are the layers that it does not load: layers whose shape depends on the
number of categories (`dap.transfer.category_dependent_parameters`), and layers that cannot be
pre-trained on boxes, such as mask heads if the boxes have no masks.

| detector | config | transferred | new |
| --- | --- | --- | --- |
{rows}
"""


def _row(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"| {result['name']} | | failed: {result['error'][:200]} | |"
    moves = ", ".join(f"{part} {count}" for part, count in result["parts"].items())
    new = ", ".join(f"`{layer}`" for layer in new_layers(result)) or "nothing"
    return f"| {result['name']} | `{result['config']}` | {moves} | {new} |"


def new_layers(result: dict[str, Any]) -> list[str]:
    """Layers that do not move; a mask head that is not pre-trained as one."""
    heads = {name.split(".mask_head.")[0] for name in result["missing"] if ".mask_head." in name}
    whole = {f"{head}.mask_head" for head in heads}
    layers = []
    for name in (*result["new"], *result["missing"]):
        head = name.split(".mask_head.")[0] + ".mask_head"
        layers.append(head if head in whole else layer_of(name))
    return list(dict.fromkeys(layers))


def layer_of(name: str) -> str:
    """Name of a layer, N for the numbers of those that are alike."""
    return re.sub(r"\.\d+(?=\.|$)", ".N", re.sub(r"\.(weight|bias)$", "", name))


def main() -> None:
    """Run or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--results", required=True)
    runs.add_argument("--only", default="", help="detectors with this in their names")
    runs.set_defaults(do=run)
    writes = commands.add_parser("table")
    writes.add_argument("--results", required=True)
    writes.add_argument("--out", default="docs/detectors.md")
    writes.set_defaults(do=table)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
