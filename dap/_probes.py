"""Checks that the doctor runs, each in its own process.

A broken extension may end the process that tries it, so none is tried in the doctor's. A trial
prints its results as JSON, or ends with an exception; the file is run by its path and imports
nothing of DAP but in the one trial that is about it.
"""

import importlib
import io
import json
import os
import pkgutil
import sys


def ops(device: str) -> list[dict[str, str]]:
    """Run mmcv's NMS and RoIAlign, compare them with torchvision's, and name their origin.

    Args:
        device: Where to run them, "cpu" or "cuda".

    Returns:
        One result for the ops and, on a CPU, one for features in channels_last order.
    """
    mmcv_ops = importlib.import_module("mmcv.ops")  # first, so that a broken one shows at once
    import torch
    import torchvision

    torch.manual_seed(0)
    corners = torch.rand(200, 2, 2).sort(dim=1).values
    boxes, scores = (corners.flatten(1) * 60).to(device), torch.rand(200).to(device)
    features = torch.randn(1, 8, 32, 32).to(device)
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)

    def difference(features: torch.Tensor) -> float:
        ours = mmcv_ops.roi_align(features, rois, (7, 7), 0.5, 2, "avg", True)
        theirs = torchvision.ops.roi_align(features, rois, 7, 0.5, 2, True)
        return float((ours - theirs).abs().max())

    name = f"operators on {device}"
    file = str(importlib.import_module("mmcv._ext").__file__)
    whose = "torchvision's and torch's, by DAP" if file.endswith(".py") else "compiled with mmcv"
    kept, theirs = mmcv_ops.nms(boxes, scores, 0.5)[1], torchvision.ops.nms(boxes, scores, 0.5)
    if not torch.equal(kept, theirs) or difference(features) > 1e-3:
        fault = f"nms or roi_align differs from torchvision's (by {difference(features):.2g})"
        advice = f"{file} computes wrong values here: mmcv was compiled for another torch"
        return [{"what": name, "found": fault, "state": "FAIL", "advice": advice}]
    results = [{"what": name, "found": whose}]
    if device == "cpu" and difference(features.to(memory_format=torch.channels_last)) > 1e-3:
        advice = "keep detectors out of channels_last on a CPU: there mmcv's roi_align is wrong"
        trap = {"what": "channels_last on cpu", "found": "roi_align wrong", "state": "note"}
        results.append({**trap, "advice": advice})
    return results


def cuda() -> list[dict[str, str]]:
    """List the GPUs, see whether torch was built for them, run the operators on the first."""
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
                f"sm_{major}{minor}: install a torch that names it, or hide it by "
                f"CUDA_VISIBLE_DEVICES"
            )
        results.append(result)
    return results if any("state" in r for r in results) else [*results, *ops("cuda")]


def built_for(major: int, minor: int, architectures: list[str]) -> bool:
    """Whether a torch with these architectures runs on a GPU of this compute capability.

    Machine code (sm_XY) runs on the same major and no smaller minor version; intermediate code
    (compute_XY) is translated for every later one.

    Args:
        major: Compute capability of the GPU, before the point.
        minor: The same, after the point.
        architectures: What torch was built for, as ``torch.cuda.get_arch_list`` gives it.
    """
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        built = divmod(int("".join(filter(str.isdigit, number))), 10)
        exact = number.isdigit() or built == (major, minor)  # sm_90a is for 9.0 alone
        if exact and built <= (major, minor) and (kind == "compute" or built[0] == major):
            return True
    return False


def checkpoints() -> list[dict[str, str]]:
    """Import MMDetection, MMPretrain and all of DAP, and load what MMEngine saves."""
    import torch
    from mmengine.logging import HistoryBuffer

    for module in ("mmdet.apis", "mmpretrain.apis", "dap"):
        importlib.import_module(module)
    dap = importlib.import_module("dap")
    for part in pkgutil.iter_modules(dap.__path__):
        if part.name not in ("mmcv_ops", "launch"):  # lies beside mmcv; is a program
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


TRIALS = {"ops": lambda: ops("cpu"), "cuda": cuda, "checkpoints": checkpoints}

if __name__ == "__main__":
    print(json.dumps(TRIALS[sys.argv[1]]()))
