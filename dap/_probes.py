"""Checks that ``dap.doctor`` runs, each in its own process.

A broken extension can crash the process that imports it, so the doctor imports none. A check
prints its results as JSON, or exits with an exception. The file is run by its path; only
``checkpoints`` imports DAP.
"""

import importlib
import io
import json
import os
import pkgutil
import sys


def ops(device: str) -> list[dict[str, str]]:
    """Run mmcv's NMS and RoIAlign, compare them with torchvision's, and report their origin.

    Args:
        device: Where to run them, "cpu" or "cuda".

    Returns:
        One result for the operators and, on a CPU, one if they fail on channels_last features.
    """
    mmcv_ops = importlib.import_module("mmcv.ops")  # first, to fail early if it is broken
    import torch
    import torchvision

    torch.manual_seed(0)
    corners = torch.rand(200, 2, 2).sort(dim=1).values
    boxes, scores = (corners.flatten(1) * 60).to(device), torch.rand(200).to(device)
    features = torch.randn(1, 8, 32, 32).to(device)
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)

    def difference(features: torch.Tensor) -> float:
        actual = mmcv_ops.roi_align(features, rois, (7, 7), 0.5, 2, "avg", True)
        expected = torchvision.ops.roi_align(features, rois, 7, 0.5, 2, True)
        return float((actual - expected).abs().max())

    name = f"operators on {device}"
    file = str(importlib.import_module("mmcv._ext").__file__)
    origin = "torchvision's and torch's, by DAP" if file.endswith(".py") else "compiled with mmcv"
    kept, expected = mmcv_ops.nms(boxes, scores, 0.5)[1], torchvision.ops.nms(boxes, scores, 0.5)
    if not torch.equal(kept, expected) or difference(features) > 1e-3:
        fault = f"nms or roi_align differs from torchvision's (by {difference(features):.2g})"
        advice = f"{file} computes wrong values here: mmcv was compiled for another torch"
        return [{"what": name, "found": fault, "state": "FAIL", "advice": advice}]
    results = [{"what": name, "found": origin}]
    if device == "cpu" and difference(features.to(memory_format=torch.channels_last)) > 1e-3:
        advice = "keep detectors out of channels_last on a CPU: there mmcv's roi_align is wrong"
        note = {"what": "channels_last on cpu", "found": "roi_align wrong", "state": "note"}
        results.append({**note, "advice": advice})
    return results


def cuda() -> list[dict[str, str]]:
    """List the GPUs, check that torch is built for them, and run the operators on the first."""
    import torch

    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else ""
        advice = (
            f"{built}: no driver, a driver too old for it, or no GPU"
            if built
            else "torch is a CPU build: for a GPU install one for CUDA"
        )
        return [{"what": "CUDA", "found": "no GPU", "state": "note", "advice": advice}]
    results = []
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        result = {"what": f"GPU {index}", "found": torch.cuda.get_device_name(index)}
        if not built_for(major, minor, torch.cuda.get_arch_list()):
            result["state"] = "FAIL"
            result["advice"] = (
                f"torch is built for {' '.join(torch.cuda.get_arch_list())}, the GPU is "
                f"sm_{major}{minor}: install a torch built for it, or hide the GPU with "
                f"CUDA_VISIBLE_DEVICES"
            )
        results.append(result)
    return results if any("state" in r for r in results) else [*results, *ops("cuda")]


def built_for(major: int, minor: int, architectures: list[str]) -> bool:
    """Whether torch built for these architectures runs on a GPU of this compute capability.

    Machine code (sm_XY) runs on GPUs with the same major and the same or a larger minor version;
    intermediate code (compute_XY) is compiled for every later version.

    Args:
        major: Major compute capability of the GPU.
        minor: Minor compute capability.
        architectures: Architectures of torch, from ``torch.cuda.get_arch_list``.
    """
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        built = divmod(int("".join(filter(str.isdigit, number))), 10)
        exact = number.isdigit() or built == (major, minor)  # sm_90a runs on 9.0 only
        if exact and built <= (major, minor) and (kind == "compute" or built[0] == major):
            return True
    return False


def checkpoints() -> list[dict[str, str]]:
    """Import MMDetection, MMPretrain and all of DAP, and load a checkpoint of MMEngine."""
    import torch
    from mmengine.logging import HistoryBuffer

    for module in ("mmdet.apis", "mmpretrain.apis", "dap"):
        importlib.import_module(module)
    dap = importlib.import_module("dap")
    for part in pkgutil.iter_modules(dap.__path__):
        if part.name not in ("mmcv_ops", "launch"):  # belongs to mmcv; is a script
            importlib.import_module(f"dap.{part.name}")
    file = io.BytesIO()
    torch.save({"loss": HistoryBuffer([1.0, 3.0], [1, 1])}, file)
    file.seek(0)
    torch.load(file)["loss"].mean()
    results = [
        {"what": "imports", "found": "mmdet, mmpretrain, dap"},
        {"what": "checkpoints", "found": "loaded by torch's safe loader"},
    ]
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        found = "loaded, the safe loader is off"
        advice = "DAP needs no TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD: unset it"
        results[-1] = {"what": "checkpoints", "found": found, "state": "note", "advice": advice}
    return results


CHECKS = {"ops": lambda: ops("cpu"), "cuda": cuda, "checkpoints": checkpoints}

if __name__ == "__main__":
    print(json.dumps(CHECKS[sys.argv[1]]()))
