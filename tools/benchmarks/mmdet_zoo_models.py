"""Build and run one model of MMDetection for ``mmdet_zoo.py``."""

import copy
import importlib
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SIZES = (128, 256, 512)
ROIS_PER_IMAGE = 64
# Numbers of boxes before and after NMS, limited to save time.
LIMITS = {"nms_pre": 200, "max_per_img": 20, "max_num": 20}
MAX_CLASSES = 80  # masks of segmentation are bytes
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


def prepare(model: Any) -> None:
    """Make a model config cheap to run.

    Pretrained weights and batch augmentations are removed, score thresholds are zero, and
    few RoIs and boxes are used.
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
        for key, limit in LIMITS.items():
            if isinstance(node.get(key), int) and "num_proposals" not in str(model):
                node[key] = min(node[key], limit)


def reason_to_skip(model: dict[str, Any]) -> str | None:
    """Return the reason why a config cannot be run here, None if it can."""
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
    """Wrap the functions of ``mmcv._ext`` to count their calls, and return the counts."""
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


def skip_initialisation_records(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Keep mmengine from recording how each parameter was initialised.

    It computes the mean of all parameters after each module, which takes minutes for DINO.

    Args:
        replace: ``setattr``, or that of a test, which is undone.
    """
    from mmengine.model import base_module, weight_init

    for module in (base_module, weight_init):
        replace(module, "update_init_info", lambda *args, **kwargs: None)


def make_inputs(model: dict[str, Any], size: int) -> dict[str, Any]:
    """Make two images with boxes, masks, segmentation and proposals."""
    import numpy as np
    from mmdet.testing import demo_mm_inputs, demo_mm_proposals

    # A panoptic head has separate numbers of things and stuff; labels of boxes are things.
    numbers = [d[k] for d in walk(model) for k in ("num_classes", "num_things_classes") if d.get(k)]
    classes = min([n for n in numbers if isinstance(n, int)] + [MAX_CLASSES])
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
    for name in ("iter", "epoch"):  # as set by a Runner, for losses with a warm-up
        MessageHub.get_current_instance().update_info(name, 1)
    start = time.perf_counter()
    model = MODELS.build(config)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.SyncBatchNorm):  # torch's version needs GPUs
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
    inputs = {key: value[:1] for key, value in inputs.items()}  # the limit of some detectors
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
    """Run one config and return the result, with the status ran, failed or skipped."""
    import torch
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules()
    skip_initialisation_records()
    with tempfile.NamedTemporaryFile() as store:  # MMSyncBN needs a process group
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
