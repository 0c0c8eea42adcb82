"""Convert a Faster R-CNN of torchvision or maskrcnn-benchmark to a checkpoint of mmdet."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mmdet
import torch
from mmengine.config import Config
from torch import Tensor

from dap.checkpoint import load_weights, require_finite
from dap.files import output_file, write_bytes

from .category_dependent import state_shapes
from .foreign_layers import (
    MMDET_EPS,
    anchor_order,
    get,
    is_of_benchmark,
    move_background,
    rename,
    reorder_anchors,
    shift_variances,
)

STYLES = ("caffe", "pytorch")  # stride in the 1x1 or in the 3x3 convolution of a bottleneck
PIXELS: dict[str, dict[str, Any]] = {  # mmdet's images are BGR, 0 to 255
    "bgr": {"mean": [102.9801, 115.9465, 122.7717], "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False},
    "rgb": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True},
}
# Whether blocks are bottlenecks, and the number of blocks per stage → depth of a ResNet.
_DEPTHS = {
    (True, 3, 4, 6, 3): 50,
    (True, 3, 4, 23, 3): 101,
    (True, 3, 8, 36, 3): 152,
    (False, 2, 2, 2, 2): 18,
    (False, 3, 4, 6, 3): 34,
}


class ConvertedDetector(NamedTuple):
    """Result of `convert_detector`.

    Attributes:
        path: The checkpoint, with ``state_dict`` and, in ``meta``, the config of its detector.
        model: Config of the detector: mmdet's ``model``.
        options: Options that a config needs to use the weights, for ``--cfg-options``.
    """

    path: Path
    model: dict[str, Any]
    options: dict[str, Any]


def convert_detector(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    style: str | None = None,
    pixels: str | None = None,
    background: str = "first",
    ratios: Sequence[float] | None = None,
    bn_eps: float | None = None,
) -> ConvertedDetector:
    """Convert a Faster R-CNN with FPN of another code base to mmdet's.

    The new detector computes the same scores and regressions. The checkpoint has a state dict of
    torchvision's ``fasterrcnn_resnet50_fpn`` or of maskrcnn-benchmark, such as the official
    release of DAP. Depth, widths, number of classes, and whether the regressor is class-agnostic or
    has rows for the background are read from the weights. The arguments supply what the weights do
    not show.

    Args:
        checkpoint: File in any format of `load_weights`.
        out: File to write, a ``.pth``.
        style: ``'caffe'`` for the stride in the 1x1 convolution, ``'pytorch'`` for the 3x3.
            Defaults to ``'caffe'`` for maskrcnn-benchmark, ``'pytorch'`` for torchvision.
        pixels: ``'bgr'`` for 0 to 255 minus the mean, ``'rgb'`` for torchvision's mean and
            standard deviation. Defaults to ``'bgr'`` for maskrcnn-benchmark, ``'rgb'`` for
            torchvision.
        background: ``'first'`` or ``'last'`` row of the class scores; in mmdet it is the last.
        ratios: Height / width of the anchors in the order of the RPN's channels. Defaults to those
            of the anchors in the checkpoint, else to .5, 1, 2.
        bn_eps: Epsilon that the code base adds to variances. mmdet adds 1e-5; the difference is
            added to the variances. Defaults to 0 for maskrcnn-benchmark and 1e-5 for torchvision
            (use 0 for torchvision's published COCO weights).

    Returns:
        The file, its config and its options.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If an argument has an unknown value, or the checkpoint is not such a detector.
    """
    out = output_file(out)
    _check_choice("suffix of out", out.suffix, (".pth",))
    _check_choice("style", style, (None, *STYLES))
    _check_choice("pixels", pixels, (None, *PIXELS))
    _check_choice("background", background, ("first", "last"))
    source = os.fspath(checkpoint)
    weights, _ = load_weights(checkpoint)
    require_finite(weights, checkpoint)
    of_benchmark = is_of_benchmark(weights, source)
    renamed = rename(weights, source)
    reorder_anchors(renamed, anchor_order(weights, ratios, source), source)
    classes, agnostic = move_background(renamed, background == "first", source)
    shift_variances(renamed, (0.0 if of_benchmark else MMDET_EPS) if bn_eps is None else bn_eps)
    options: dict[str, Any] = {
        "backbone.depth": _depth(renamed, source),
        "backbone.style": style or ("caffe" if of_benchmark else "pytorch"),
        **{
            f"data_preprocessor.{key}": value
            for key, value in PIXELS[pixels or ("bgr" if of_benchmark else "rgb")].items()
        },
        "roi_head.bbox_roi_extractor.roi_layer.sampling_ratio": 2,
        "roi_head.bbox_roi_extractor.roi_layer.aligned": False,
        "roi_head.bbox_head.reg_class_agnostic": agnostic,
    }
    model = _model(renamed, classes, options, source)
    state = _fit(renamed, model, source)
    text = Config({"default_scope": "mmdet", "model": model}).pretty_text
    buffer = io.BytesIO()
    torch.save({"meta": {"cfg": text}, "state_dict": state}, buffer)
    write_bytes(out, buffer.getvalue())
    return ConvertedDetector(out, model, {f"model.{key}": value for key, value in options.items()})


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices if choice is not None)
        raise ValueError(f"{name}: expected one of {known}, found {value!r}")


def _depth(weights: Mapping[str, Tensor], source: str) -> int:
    blocks = [
        len({name.split(".")[2] for name in weights if name.startswith(f"backbone.layer{i}.")})
        for i in range(1, 5)
    ]
    key = ("backbone.layer1.0.conv3.weight" in weights, *blocks)
    if key not in _DEPTHS:
        raise ValueError(
            f"{source}: the backbone has stages of {blocks} blocks; expected a ResNet of depth "
            f"{', '.join(map(str, sorted(_DEPTHS.values())))}"
        )
    return _DEPTHS[key]


def _model(
    weights: Mapping[str, Tensor], classes: int, options: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Build the config of the detector; layer widths are read from the tensors."""
    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    config = Config.fromfile(folder / "_base_" / "models" / "faster-rcnn_r50_fpn.py")
    laterals = [weights.get(f"neck.lateral_convs.{i}.conv.weight") for i in range(4)]
    stem = get(weights, "backbone.conv1.weight", source)
    shared = get(weights, "roi_head.bbox_head.shared_fcs.0.weight", source)
    width = next((len(lateral) for lateral in laterals if lateral is not None), 256)
    roi_size = math.isqrt(shared.shape[1] // width)
    values = {
        "backbone.init_cfg": None,
        "backbone.stem_channels": len(stem),
        "backbone.base_channels": len(weights["backbone.layer1.0.conv1.weight"]),
        "neck.in_channels": [x.shape[1] for x in laterals if x is not None],
        "neck.out_channels": width,
        "rpn_head.in_channels": width,
        "rpn_head.feat_channels": len(get(weights, "rpn_head.rpn_conv.weight", source)),
        "roi_head.bbox_roi_extractor.out_channels": width,
        "roi_head.bbox_roi_extractor.roi_layer.output_size": roi_size,
        "roi_head.bbox_head.in_channels": width,
        "roi_head.bbox_head.fc_out_channels": len(shared),
        "roi_head.bbox_head.roi_feat_size": roi_size,
        "roi_head.bbox_head.num_classes": classes,
        **options,
    }
    config.merge_from_dict({f"model.{key}": value for key, value in values.items()})
    model: dict[str, Any] = config.model.to_dict()
    return model


def _fit(weights: Mapping[str, Tensor], model: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Check that the tensors are those of mmdet's detector, and return them in its order."""
    shapes = state_shapes(model, "mmdet")
    actual = {name: tuple(value.shape) for name, value in weights.items()}
    faults = [
        f"{name} is {actual.get(name, 'absent')}, expected {shapes.get(name, 'none')}"
        for name in [*shapes, *(name for name in actual if name not in shapes)]
        if actual.get(name) != shapes.get(name)
    ]
    if faults:
        raise ValueError(
            f"{source} does not fit mmdet's Faster R-CNN: {len(faults)} tensors differ, such as "
            f"{'; '.join(faults[:3])}. Convert a Faster R-CNN with a plain ResNet and FPN"
        )
    return {name: weights[name].contiguous() for name in shapes}
