"""Build and run the detectors of MMDetection's config folder on a small input.

    python tools/benchmarks/mmdet_zoo.py run --results zoo.jsonl
    python tools/benchmarks/mmdet_zoo.py table --results zoo.jsonl --out docs/mmdet_zoo.md

Of all configs, those with the same set of component types are run once, by the one
with the shallowest backbone; each folder is run at least once. A run is loss and
backward on two images and prediction on one, of 128 x 128 pixels (256 or 512 if the
detector needs it), with random weights and at most 64 sampled RoIs per image, in a
process of its own with a time limit. The results file is appended to, and configs that
are in it are not run again.
"""

import argparse
import copy
import importlib
import json
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIZES = (128, 256, 512)
ROIS_PER_IMAGE = 64
# Boxes before and after NMS, which change the time alone.
LIMITS = {"nms_pre": 200, "max_per_img": 20, "max_num": 20}
MOST_CLASSES = 80  # masks of segmentation are bytes
VIDEO = "needs videos (tracking)"
TRACKERS = {
    "ByteTrack",
    "DeepSORT",
    "MaskTrackRCNN",
    "Mask2FormerVideo",
    "OCSORT",
    "QDTrack",
    "SORT",
    "StrongSORT",
}


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Yield all dicts in a tree of dicts and lists."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list | tuple):
            yield from walk(child)


def component_types(model: dict[str, Any]) -> str:
    """Return the sorted component types of a model config as one string."""
    return " ".join(sorted({str(d["type"]) for d in walk(model) if "type" in d}))


def choose(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Choose the configs to run.

    Returns:
        Paths below ``folder``, one of each subfolder first, and for each how many configs
        it stands for.
    """
    from mmengine.config import Config
    from mmengine.logging import MMLogger

    MMLogger.get_instance("mmengine", log_level="ERROR")
    groups: dict[str, list[tuple[int, str]]] = {}
    for path in sorted(folder.rglob("*.py")):
        name = str(path.relative_to(folder))
        if name.startswith("_base_"):
            continue
        try:
            model = Config.fromfile(path).get("model")
        except Exception as error:  # noqa: BLE001 - reported as the result of this config
            groups[f"unreadable: {name}: {error}"] = [(0, name)]
            continue
        if model:
            depth = model.get("backbone", {}).get("depth", 0)
            depth = depth if isinstance(depth, int) else 0
            groups.setdefault(component_types(model.to_dict()), []).append((depth, name))
    counts = {min(members)[1]: len(members) for members in groups.values()}
    folders = {name.split("/")[0] for name in counts}
    for members in groups.values():
        for _, name in sorted(members):
            if name.split("/")[0] not in folders:
                folders.add(name.split("/")[0])
                counts[name] = 1
    rank: dict[str, int] = {}
    order = []
    for name in sorted(counts):
        family = name.split("/")[0]
        rank[family] = rank.get(family, 0) + 1
        order.append((rank[family], name))
    return [name for _, name in sorted(order)], counts


def prepare(model: Any) -> None:
    """Make a model config cheap to run.

    Pretrained weights and the enlargement of batches are blanked, all scores are let
    through, few RoIs are sampled, few boxes are kept.
    """
    for node in walk(model):
        for key in ("pretrained", "teacher_ckpt", "checkpoint"):
            if key in node:
                node[key] = False if isinstance(node[key], bool) else None
        if isinstance(node.get("init_cfg"), dict) and "checkpoint" in node["init_cfg"]:
            node["init_cfg"] = None
        if "batch_augments" in node:
            node["batch_augments"] = None
        if isinstance(node.get("score_thr"), float):
            node["score_thr"] = 0.0
        if str(node.get("type")).endswith("Sampler") and "num" in node:
            node["num"] = min(node["num"], ROIS_PER_IMAGE)
        for key, most in LIMITS.items():
            if isinstance(node.get(key), int) and "num_proposals" not in str(model):
                node[key] = min(node[key], most)


def reason_to_skip(model: dict[str, Any]) -> str | None:
    """Say why a config cannot be run here, None if it can."""
    types = component_types(model).split()
    if model["type"] in TRACKERS:
        return VIDEO
    if model["type"] == "ImageClassifier":
        return "no detector (a classifier of MMPretrain)"
    if model["type"] == "BaseReID":
        return "no detector (re-identification of persons)"
    if any(t.endswith("BertModel") for t in types) or "language_model" in model:
        return "needs a language model from the hub"
    return None


def count_operators() -> dict[str, int]:
    """Wrap the functions of ``mmcv._ext`` so that calls are counted, and return the counts."""
    ext = importlib.import_module("mmcv._ext")
    counts: dict[str, int] = {}

    def wrap(name: str) -> None:
        function = getattr(ext, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return function(*args, **kwargs)

        setattr(ext, name, counted)

    for name in dir(ext):
        if not name.startswith("_") and callable(getattr(ext, name)):
            wrap(name)
    return counts


def skip_the_record_of_initialisation() -> None:
    """Keep mmengine from noting how each parameter was initialised.

    It takes the mean of all parameters after each module: minutes for a DINO.
    """
    from mmengine.model import base_module, weight_init

    for module in (base_module, weight_init):
        module.update_init_info = lambda *args, **kwargs: None


def make_inputs(model: dict[str, Any], size: int) -> dict[str, Any]:
    """Make two images with boxes, masks, segmentation and proposals."""
    import numpy as np
    from mmdet.testing import demo_mm_inputs, demo_mm_proposals

    # A panoptic head counts things and stuff apart; the labels of boxes are things.
    numbers = [d[k] for d in walk(model) for k in ("num_classes", "num_things_classes") if d.get(k)]
    classes = min([n for n in numbers if isinstance(n, int)] + [MOST_CLASSES])
    shapes = [(3, size, size)] * 2
    data = demo_mm_inputs(
        2,
        shapes,
        num_items=[3, 2],
        num_classes=max(2, classes),
        with_mask="mask" in str(model),
        with_semantic=True,
    )
    for sample, proposals in zip(data["data_samples"], demo_mm_proposals(shapes, 50), strict=True):
        if not model.get("rpn_head"):
            sample.proposals = proposals
        sample.gt_instances.labels %= classes
        sample.set_metainfo({"homography_matrix": np.eye(3, dtype=np.float32)})
    if model.get("data_preprocessor", {}).get("type") == "MultiBranchDataPreprocessor":
        branches = ("sup", "unsup_teacher", "unsup_student")
        return {key: {b: copy.deepcopy(data[key]) for b in branches} for key in data}
    return data


def run_model(config: dict[str, Any], size: int) -> dict[str, Any]:
    """Run loss, backward and prediction; return the loss and the seconds of each."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.logging import MessageHub
    from mmengine.model import revert_sync_batchnorm

    torch.manual_seed(0)
    for name in ("iter", "epoch"):  # as a Runner tells them to losses that are warmed up
        MessageHub.get_current_instance().update_info(name, 1)
    start = time.perf_counter()
    model = MODELS.build(config)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.SyncBatchNorm):  # torch's is for GPUs alone
            model.set_submodule(name, revert_sync_batchnorm(module))
    built = time.perf_counter()
    model.init_weights()
    model.train()
    inputs = make_inputs(config, size)
    losses = model(**model.data_preprocessor(copy.deepcopy(inputs), True), mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()
    if all(p.grad is None for p in model.parameters()):
        raise RuntimeError("no parameter received a gradient")
    trained = time.perf_counter()
    model.eval()
    if "sup" in inputs["inputs"]:
        inputs = {key: value["sup"] for key, value in inputs.items()}
        model.data_preprocessor = model.data_preprocessor.data_preprocessor
    inputs = {key: value[:1] for key, value in inputs.items()}  # some detectors take one image only
    with torch.no_grad():
        predictions = model(**model.data_preprocessor(inputs, False), mode="predict")
    keys = [k for k in predictions[0].keys() if k.startswith("pred")]  # noqa: SIM118
    if not keys:
        raise RuntimeError("the prediction is empty")
    return {
        "loss": float(loss),
        "pixels": size,
        "build_s": round(built - start, 1),
        "train_s": round(trained - built, 1),
        "predict_s": round(time.perf_counter() - trained, 1),
    }


def run_config(path: Path) -> dict[str, Any]:
    """Run one config and return what happened: status ran, failed or skipped."""
    import torch
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules()
    skip_the_record_of_initialisation()
    with tempfile.NamedTemporaryFile() as store:  # MMSyncBN asks for a group of processes
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store.name}", rank=0, world_size=1
        )
    try:
        model = Config.fromfile(path).model
    except Exception as error:  # noqa: BLE001 - the error is this tool's result
        return {"status": "skipped", "reason": f"cannot be read: {type(error).__name__}"}
    if reason := reason_to_skip(model):
        return {"status": "skipped", "reason": reason}
    prepare(model)
    counts = count_operators()
    for size in SIZES:
        try:
            result = run_model(copy.deepcopy(model), size)
        except Exception as error:  # noqa: BLE001 - the error is this tool's result
            traceback.print_exc()
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            result = {"reason": f"{type(error).__name__}: {error}"[:300], "place": place}
            if isinstance(error, ImportError):
                return {"status": "skipped", **result}
            if isinstance(error, NotImplementedError):
                break
            continue
        return {"status": "ran", "operators": sorted(counts), **result}
    return {"status": "failed", "operators": sorted(counts), **result}


def _child(path: Path, log: str, connection: Any) -> None:
    """Run one config in a forked process, its output in a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    connection.send(run_config(path))


def run_limited(path: Path, log: str, limit: float) -> dict[str, Any]:
    """Run one config in a process of its own, for at most ``limit`` seconds."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(path, log, sender))
    process.start()
    sender.close()
    try:
        result = receiver.recv() if receiver.poll(limit) else None
    except EOFError:
        process.join()
        return {"status": "failed", "reason": f"the process ended with code {process.exitcode}"}
    process.kill()
    process.join()
    return result or {"status": "failed", "reason": f"not finished within {limit:.0f} s"}


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Read results by config name; the last line of a config counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {result["config"]: result for result in map(json.loads, lines)}


def run(args: argparse.Namespace) -> None:
    """Run all chosen configs that have no result yet."""
    import mmdet
    import mmdet.apis
    import mmdet.models
    import mmdet.testing

    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    results = args.results.resolve()
    os.chdir(folder.parent)  # configs of distillation name their teachers relative to it
    names, counts = choose(folder)
    names = [name for name in names if name.startswith(tuple(args.only or [""]))]
    done = read_results(results)
    for number, name in enumerate(names, 1):
        if name in done and not (args.retry and done[name]["status"] == "failed"):
            continue
        start = time.perf_counter()
        result = run_limited(folder / name, args.log, args.limit)
        result = {"config": name, "stands_for": counts[name], **result}
        result["seconds"] = round(time.perf_counter() - start, 1)
        with results.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(
            f"{number}/{len(names)} {name}: {result['status']} {result.get('reason', '')}",
            flush=True,
        )


def table(args: argparse.Namespace) -> None:
    """Print the results as a Markdown table."""
    import torch
    import torchvision
    from mmengine.utils import get_installed_path  # noqa: F401 - mmengine must be there

    results = read_results(args.results)
    groups = {
        s: [r for r in results.values() if r["status"] == s] for s in ("ran", "failed", "skipped")
    }
    numbers = ", ".join(
        f"{len(v)} {k} (for {sum(r['stands_for'] for r in v)} configs)" for k, v in groups.items()
    )
    operators = sorted({o for r in results.values() for o in r.get("operators", [])})
    lines = [
        "# Detectors of MMDetection 3.3 with `mmcv_ops`\n",
        "Every distinct set of component types in the config folder of MMDetection 3.3 was tested:",
        "loss and backward on two images, prediction on one, with random weights and at most 64",
        "sampled RoIs per image. Images have 128 x 128 pixels, or 256 or 512 where given. Run on a",
        f"CPU with torch {torch.__version__}, torchvision {torchvision.__version__} and mmcv-lite.",
        "The page is written by `tools/benchmarks/mmdet_zoo.py`. One config is listed for all that",
        "have the same components.\n",
        f"{numbers}.\n",
        "Operators of mmcv that were called: " + ", ".join(f"`{o}`" for o in operators) + ".\n",
        "| config | stands for | result | operators of mmcv |",
        "| --- | ---: | --- | --- |",
    ]
    for name, result in sorted(results.items()):
        text = (
            result["status"]
            if result["status"] == "ran"
            else f"{result['status']}: {result['reason']}"
        )
        if result.get("pixels", SIZES[0]) != SIZES[0]:
            text += f" at {result['pixels']} px"
        called = sorted(
            {o.replace("_forward", "").split("_backward")[0] for o in result.get("operators", [])}
        )
        text = " ".join(text.split()).replace("|", "/")
        lines.append(f"| {name} | {result['stands_for']} | {text} | {', '.join(called)} |")
    args.out.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Parse arguments and run or print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run configs without a result")
    runner.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    runner.add_argument("--limit", type=float, default=180, help="seconds per config")
    runner.add_argument("--only", nargs="*", help="beginnings of config names")
    runner.add_argument("--retry", action="store_true", help="run failed ones again")
    runner.add_argument("--log", default=os.devnull, help="file for the output of the last config")
    runner.set_defaults(function=run)
    printer = commands.add_parser("table", help="write the Markdown table")
    printer.add_argument("--results", type=Path, required=True)
    printer.add_argument("--out", type=Path, default=Path("docs/mmdet_zoo.md"))
    printer.set_defaults(function=table)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
