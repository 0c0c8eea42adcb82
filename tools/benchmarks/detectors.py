"""Run Steps 3 and 4 of MMDetection's detectors on tiny data, and report the transferred weights.

    python tools/benchmarks/detectors.py run --results detectors.jsonl
    python tools/benchmarks/detectors.py run --results detectors.jsonl --only rtmdet
    python tools/benchmarks/detectors.py table --results detectors.jsonl --out docs/detectors.md

tools/new_config.py writes the configs of each detector. The full model is pre-trained for two
iterations on boxes of 3 classes, extracted, and fine-tuned for two iterations on a set of 2 classes
from DAP and from CLS, with validation, on a CPU, with small images and batches and random weights.
Results are appended to the results file, and detectors in it are not run again. Each detector runs
in a forked process, so that packages are imported only once.
"""

import argparse
import json
import math
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detector_cases import CASES
from detector_page import write_page
from mmdet_zoo_models import skip_initialisation_records, walk

os.environ.setdefault("OMP_NUM_THREADS", "1")

ITERATIONS = 2
# Numbers of boxes before and after NMS and of sampled regions, limited to save time.
LIMITS = {"nms_pre": 200, "max_per_img": 50, "num": 64}


def make_data(folder: Path) -> dict[str, Path]:
    """Write boxes to pre-train on, and a detection set, both with and without masks."""
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
    """Run one detector of the table; return what was transferred."""
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
    """Run both steps of a detector; return what was transferred, from the report of the transfer.

    Raises:
        RuntimeError: If a loss is not finite, or if the transfer differs from its prediction.
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
    checkpoint = Path(pretrain.work_dir) / f"iter_{ITERATIONS}.pth"
    extracted = extract_detector(checkpoint, folder / "weights")
    cls, dap_config = (small(Config.fromfile(path), side) for path in recipe.finetune)
    losses["cls"], seconds["cls"], _ = train(cls)
    dap_config.model.init_cfg.checkpoint = str(extracted)
    losses["dap"], seconds["dap"], reports = train(dap_config)
    report, predicted = reports[0], recipe.report
    if predicted is None or set(report.loaded) != set(predicted.loaded):
        raise RuntimeError("the transfer differs from its prediction")
    bad = [key for key, loss in losses.items() if not math.isfinite(loss)]
    if bad:
        raise RuntimeError(f"the loss is not finite: {losses}")
    return {
        "config": config,
        "parts": per_part(predicted),
        "new": list(predicted.category_dependent),
        "missing": list(predicted.missing),
        "unexpected": list(predicted.unexpected),
        "losses": losses,
        "seconds": seconds,
    }


def timm_weights(folder: Path, name: str) -> Path:
    """Write random weights of a timm classifier as a safetensors file."""
    import timm
    from safetensors.torch import save_file

    path = folder / f"{name}.safetensors"
    save_file(timm.create_model(name).state_dict(), path)
    return path


def small(config: Any, side: int) -> Any:
    """Change a config so that it runs on a CPU in seconds, with the same model."""
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
    pictures = config.default_hooks.get("visualization", {})
    if pictures.get("type") == "dap.ValidationPicturesHook":
        pictures.num_images = 1
    config.default_hooks.logger.interval = 1
    for node in walk(config.model):
        start = node.get("init_cfg")
        if isinstance(start, dict) and "://" in str(start.get("checkpoint")):
            node["init_cfg"] = None  # nothing is downloaded
        for key, limit in LIMITS.items():
            if isinstance(node.get(key), int):
                node[key] = min(node[key], limit)
    if config.optim_wrapper.type == "AmpOptimWrapper":  # needs a GPU
        config.optim_wrapper.type = "OptimWrapper"
        config.optim_wrapper.pop("loss_scale", None)
        config.optim_wrapper.pop("dtype", None)
    config.randomness = {"seed": 0}
    config.log_level = "ERROR"
    return config


def _shrink(step: Any, side: int) -> None:
    """Change a step of a pipeline to produce small images."""
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
    """Train; return the last loss, the seconds, and the reports of transfers."""
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
    """Count the transferred tensors per module of the detector."""
    from dap.transfer.report import part_of

    counts: dict[str, int] = {}
    for name in report.loaded:
        part = part_of(name, report.parts)
        counts[part] = counts.get(part, 0) + 1
    return counts


def run(args: argparse.Namespace) -> None:
    """Run the detectors that have no result yet, each in one process."""
    import_all()
    results = Path(args.results)
    lines = results.read_text().splitlines() if results.is_file() else []
    finished = {json.loads(line)["name"] for line in lines}
    for name in CASES:
        if name in finished or args.only.lower() not in name.lower():
            continue
        result = in_process(name)
        with open(results, "a") as file:
            file.write(json.dumps(result) + "\n")
        print(name, result.get("error") or result["seconds"], flush=True)


def import_all() -> None:
    """Import the packages before processes are forked."""
    import mmdet.apis
    import mmdet.engine  # noqa: F401
    import mmpretrain.models  # noqa: F401

    import dap.new_config  # noqa: F401

    skip_slow_parts(setattr)


def skip_slow_parts(replace: Callable[[Any, str, Any], None]) -> None:
    """Skip the parts of mmengine that take most of the time.

    These are records of initialisation, see :func:`skip_initialisation_records`, and formatting the
    text of a config, which takes 20 seconds per training.

    Args:
        replace: ``setattr``, or that of a test, which is undone.
    """
    from mmengine.config import config as mmengine_config

    import dap.transfer.pretrained_detector as pretrained

    skip_initialisation_records(replace)
    replace(pretrained, "update_init_info", lambda *args, **kwargs: None)
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


def main() -> None:
    """Run the detectors, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--results", required=True)
    runs.add_argument("--only", default="", help="detectors with this in their names")
    runs.set_defaults(function=run)
    writes = commands.add_parser("table")
    writes.add_argument("--results", required=True)
    writes.add_argument("--out", default="docs/detectors.md")
    writes.set_defaults(function=write_page)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
