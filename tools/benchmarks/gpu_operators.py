"""Compare the operators that mmdet calls, and the maps of Step 2, on a device and the CPU."""

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from gpu_rows import Options, Report, Row, wait
from torch import Tensor

# Largest difference allowed, relative to the largest value; half precision also accumulates.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.3}
MISSING = ("not found", "not compiled", "not implemented", "no implementation", "not supported")
Inputs = dict[str, Tensor]


class Case(NamedTuple):
    """An operator with its inputs.

    Attributes:
        name: Its name in mmcv.ops.
        inputs: Tensors on the CPU; floating-point tensors in float32.
        call: Computes the output from inputs on any device.
        differentiable: Inputs whose gradients are compared.
    """

    name: str
    inputs: Inputs
    call: Callable[[Inputs], Tensor]
    differentiable: Sequence[str] = ()


class LackingError(Exception):
    """A device has no implementation of the operator."""


def operators(options: Options, report: Report) -> None:
    """Compare all operators, forward and backward, and measure their time on the device."""
    torch.backends.cudnn.allow_tf32 = False
    types = [torch.float32, torch.float16, torch.bfloat16]
    generator = torch.Generator().manual_seed(0)
    for case in cases(generator, 0.1 if options.quick else 1.0):
        for dtype in types if case.differentiable else types[:1]:
            report(compared(case, dtype, options))
    report(compared(step_2_maps(generator), torch.float32, options))


def cases(generator: torch.Generator, share: float) -> list[Case]:
    """Make the operators of mmcv with random inputs; ``share`` scales their size."""
    from mmcv import ops

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    count = int(2000 * share)
    boxes = torch.rand(count, 4, generator=generator) * 300
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.rand(count, generator=generator)
    labels = torch.randint(0, 80, (count,), generator=generator)
    rois = torch.cat([labels[:, None] % 2, boxes], 1)
    side = 24 if share < 1 else 100
    offset = {"offset": normal(2, 18, side, side)}
    image = {"x": normal(2, 16, side, side), "weight": normal(8, 16, 3, 3) / 12, **offset}
    mask = {"mask": torch.rand(2, 9, side, side, generator=generator)}
    return [
        Case("nms", {"boxes": boxes, "scores": scores},
             lambda i: ops.nms(i["boxes"], i["scores"], 0.5)[0]),
        Case("batched_nms", {"boxes": boxes, "scores": scores, "labels": labels},
             lambda i: ops.batched_nms(i["boxes"], i["scores"], i["labels"],
                                       {"type": "nms", "iou_threshold": 0.5})[0]),
        Case("roi_align", {"x": normal(2, 16, side, side), "rois": rois},
             lambda i: ops.roi_align(i["x"], i["rois"], 7, side / 600, 0, "avg", True), ["x"]),
        Case("sigmoid_focal_loss", {"x": normal(count, 80), "labels": labels},
             lambda i: ops.sigmoid_focal_loss(i["x"], i["labels"], 2.0, 0.25, None, "sum"), ["x"]),
        Case("deform_conv2d", image,
             lambda i: ops.deform_conv2d(i["x"], i["offset"], i["weight"], 1, 1, 1),
             ["x", "offset", "weight"]),
        Case("modulated_deform_conv2d", {**image, **mask},
             lambda i: ops.modulated_deform_conv2d(
                 i["x"], i["offset"], i["mask"], i["weight"], None, 1, 1, 1),
             ["x", "offset", "mask", "weight"]),
        deformable_attention(generator),
    ]  # fmt: skip


def deformable_attention(generator: torch.Generator) -> Case:
    """Make the case of Deformable DETR's attention over two levels."""
    from mmcv.ops import MultiScaleDeformableAttention

    module = MultiScaleDeformableAttention(embed_dims=64, num_heads=4, num_levels=2, dropout=0.0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    shapes = torch.tensor([[16, 20], [8, 10]])

    def call(inputs: Inputs) -> Tensor:
        on_device = copy.deepcopy(module).to(inputs["query"])
        return on_device(
            query=inputs["query"], value=inputs["value"], identity=inputs["query"],
            reference_points=inputs["points"], spatial_shapes=shapes.to(inputs["query"].device),
            level_start_index=torch.tensor([0, 320], device=inputs["query"].device),
        )  # fmt: skip

    inputs = {
        "query": torch.randn(100, 2, 64, generator=generator),
        "value": torch.randn(400, 2, 64, generator=generator),
        "points": torch.rand(2, 100, 2, 2, generator=generator),
    }
    return Case("MultiScaleDeformableAttention", inputs, call, ["query", "value"])


def step_2_maps(generator: torch.Generator) -> Case:
    """Make the case of Step 2: resize, normalise, pad, features of one convolution, and maps."""
    from dap.cam import batch_maps, linear_maps

    inputs = {
        "image": torch.randint(0, 256, (3, 375, 500), generator=generator, dtype=torch.uint8),
        "filters": torch.randn(64, 3, 32, 32, generator=generator) / 60,
        "weight": torch.randn(1000, 64, generator=generator),
    }

    def call(inputs: Inputs) -> Tensor:
        def features(views: Tensor) -> Tensor:
            return torch.conv2d(views, inputs["filters"], stride=32).relu()

        batch = batch_maps(
            [inputs["image"]] * 2, 288, (False, True),
            partial(linear_maps, features, inputs["weight"]),
            [torch.tensor([3, 7]), torch.tensor([999])],
            lambda x: (x - 120) / 58,
        )  # fmt: skip
        return batch.maps

    return Case("batch_maps of Step 2", inputs, call)


def compared(case: Case, dtype: torch.dtype, options: Options) -> Row:
    """Compare one operator in one precision."""
    name = f"{case.name}, {str(dtype).removeprefix('torch.')}"
    rounded = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in case.inputs.items()
    }
    note = ""
    try:
        actual = results(case, rounded, options.device)
    except LackingError as error:
        return Row(name, f"{options.device} lacks it: {error}", "lacking")
    try:
        expected = results(case, rounded, "cpu")
    except LackingError as error:
        if dtype == torch.float32:
            return Row(name, f"works on {options.device}; the CPU lacks it: {error}", "lacking")
        exact = {k: v.float() if v.is_floating_point() else v for k, v in rounded.items()}
        note = " (CPU in float32)"
        try:
            expected = results(case, exact, "cpu")
        except LackingError:
            return Row(name, f"works on {options.device}; the CPU lacks it", "lacking")
    worst = max(map(difference, actual, expected))
    milliseconds = timed(case, rounded, options)
    text = f"largest difference {worst:.1e} of the largest value{note}, {milliseconds:.2f} ms"
    return Row(name, text, "ok" if worst <= TOLERANCES[dtype] else "failed")


def results(case: Case, inputs: Inputs, device: str) -> list[Tensor]:
    """Compute the output and the gradients of its mean square; return them on the CPU.

    Raises:
        LackingError: If the device has no such operator.
    """
    placed = {
        key: value.to(device).requires_grad_(key in case.differentiable)
        for key, value in inputs.items()
    }
    try:
        output = case.call(placed)
        if case.differentiable:
            output.float().square().mean().backward()
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        if any(text in str(error).lower() for text in MISSING):
            raise LackingError(str(error).splitlines()[0][:90]) from error
        raise
    gradients = [placed[key].grad for key in case.differentiable]
    return [each.detach().float().cpu() for each in [output, *gradients] if each is not None]


def difference(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value.

    It is infinite if shapes differ, or if a value is not finite.
    """
    if actual.shape != expected.shape or not actual.isfinite().all():
        return float("inf")
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def timed(case: Case, inputs: Inputs, options: Options) -> float:
    """Milliseconds of forward and backward on the device, including copies to the CPU."""
    repeats = 1 if options.quick else 10
    wait()
    begin = time.perf_counter()
    for _ in range(repeats):
        results(case, inputs, options.device)
    wait()
    return (time.perf_counter() - begin) * 1000 / repeats
