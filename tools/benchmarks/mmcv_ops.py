"""Compare the operators of ``dap/mmcv_ops`` with those of a compiled mmcv.

    python tools/benchmarks/mmcv_ops.py equality [--device cuda] [--inputs 1000]
    python tools/benchmarks/mmcv_ops.py speed [--device cuda] [--rounds 10] [--size 256]

``equality`` prints the largest difference per operator on random inputs, forward and
backward. ``speed`` trains detectors of MMDetection's config folder from the same weights
with both implementations, alternating within one process, and prints the ratio of the
times, the differences of the losses and, on a GPU, the memory of an iteration.
Both print Markdown and need an environment with a compiled mmcv.
"""

import argparse
import contextlib
import copy
import importlib
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from mmcv_ops_cases import CASES, Case

FOLDER = Path(__file__).resolve().parents[2] / "dap" / "mmcv_ops"
DETECTORS = {
    "Faster R-CNN R-50": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "RetinaNet R-50": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "Deformable DETR R-50": "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "Faster R-CNN R-50, DCNv2": "dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py",
}


def load_ours() -> ModuleType:
    """Import ``dap/mmcv_ops/_ext.py`` from its file, in addition to a compiled ``mmcv._ext``."""
    name = "mmcv_ops_by_torch"
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{FOLDER}: expected the package of the operators")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}._ext")


def load_compiled() -> ModuleType:
    """Import the compiled ``mmcv._ext``.

    Raises:
        SystemExit: If mmcv has none.
    """
    try:
        ext = importlib.import_module("mmcv._ext")
    except ModuleNotFoundError:
        raise SystemExit("mmcv has no operators: install a compiled mmcv to compare with") from None
    if str(ext.__file__).endswith(".py"):
        raise SystemExit(f"{ext.__file__} is not compiled: install a compiled mmcv to compare with")
    return ext


@contextlib.contextmanager
def operators_of(ext: ModuleType) -> Iterator[None]:
    """Make all of ``mmcv.ops`` call the operators of one module."""
    modules: list[Any] = [
        m for n, m in sys.modules.items() if n.startswith("mmcv.ops.") and hasattr(m, "ext_module")
    ]
    previous = [m.ext_module for m in modules]
    for module in modules:
        module.ext_module = ext
    try:
        yield
    finally:
        for module, old in zip(modules, previous, strict=True):
            module.ext_module = old


def evaluate(function: Any, inputs: list[Any], differentiable: list[int], seed: int) -> list[Any]:
    """Return the outputs of a function, then its gradients by the differentiable inputs."""
    inputs = [x.clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    for index in differentiable:
        inputs[index].requires_grad_()
    output = function(*inputs)
    outputs = list(output) if isinstance(output, tuple | list) else [output]
    gradients: list[Any] = []
    if differentiable:
        generator = torch.Generator().manual_seed(seed)
        grad = torch.randn(outputs[0].shape, generator=generator).to(outputs[0])
        gradients = list(torch.autograd.grad(outputs[0], [inputs[i] for i in differentiable], grad))
    return [o.detach() for o in outputs] + gradients


def largest_difference(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    """Return the largest absolute difference of two lists of tensors; infinite if shapes differ."""
    if [x.shape for x in first] != [x.shape for x in second]:
        return float("inf")
    differences = [
        # equal infinities and equal NaNs count as equal
        torch.where((x == y) | (x.isnan() & y.isnan()), 0, (x - y).abs()).max().item()
        for x, y in ((a.double(), b.double()) for a, b in zip(first, second, strict=True))
        if x.numel()
    ]
    return max(differences, default=0.0)


def compare(case: Case, compiled: ModuleType, ours: ModuleType, count: int, device: str) -> str:
    """Compare one operator on ``count`` random inputs and return its row of the table."""
    forward = backward = 0.0
    reference = "compiled mmcv"
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        inputs = [x.to(device) if isinstance(x, torch.Tensor) else x for x in case.make(generator)]
        with operators_of(ours):
            results = evaluate(case.apply, inputs, case.differentiable, seed)
        if reference == "compiled mmcv":
            try:
                with operators_of(compiled):
                    expected = evaluate(case.apply, inputs, case.differentiable, seed)
            except (RuntimeError, AssertionError) as error:
                if case.reference is None or not case.lacks_device(error):
                    raise
                reference = f"{case.reference_name} (no operator for {device} in compiled mmcv)"
        if reference != "compiled mmcv":
            expected = evaluate(case.reference, inputs, case.differentiable, seed)
        outputs = len(results) - len(case.differentiable)
        forward = max(forward, largest_difference(results[:outputs], expected[:outputs]))
        backward = max(backward, largest_difference(results[outputs:], expected[outputs:]))
    gradient = f"{backward:.1e}" if case.differentiable else "none"
    return f"| {case.name} | {reference} | {count} | {forward:.1e} | {gradient} |"


def machine(device: str) -> str:
    """Describe versions and device in one line."""
    import mmcv
    import torchvision

    if device != "cpu":
        name = torch.cuda.get_device_name()
    else:
        name = f"CPU ({torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores)"
    return (
        f"mmcv {mmcv.__version__}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, {name}, {torch.get_num_threads()} thread(s)."
    )


def equality(args: argparse.Namespace) -> None:
    """Print the table of the largest differences."""
    import mmcv.ops  # noqa: F401 - its modules are needed in operators_of

    compiled, ours = load_compiled(), load_ours()
    print(machine(args.device), "\n")
    print("| operator | compared with | inputs | forward | gradients |")
    print("| --- | --- | ---: | ---: | ---: |")
    for case in CASES:
        if not args.only or any(case.name.startswith(o) for o in args.only):
            print(compare(case, compiled, ours, args.inputs, args.device), flush=True)


class Trainer:
    """A detector that is trained with the operators of one module."""

    def __init__(self, model: Any, ext: ModuleType, inputs: dict[str, Any]) -> None:
        self.model, self.ext, self.inputs = model, ext, inputs
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.bytes = 0

    def iterate(self, seed: int, cuda: bool) -> None:
        """Train for one iteration and record time, loss and memory."""
        torch.manual_seed(seed)
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        # CPU time does not depend on other processes of the machine.
        clock = time.perf_counter if cuda else time.process_time
        start = clock()
        with operators_of(self.ext):
            data = self.model.data_preprocessor(copy.deepcopy(self.inputs), True)
            loss, _ = self.model.parse_losses(self.model(**data, mode="loss"))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.losses.append(loss.item())
        self.seconds.append(clock() - start)
        if cuda:
            self.bytes = max(self.bytes, torch.cuda.max_memory_allocated() - before)


def build(path: Path, size: int, device: str, modules: list[ModuleType]) -> list[Trainer]:
    """Build a detector with random weights, once per module of operators."""
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.logging import MMLogger

    register_all_modules()
    MMLogger.get_instance("mmengine", log_level="ERROR")
    config = Config.fromfile(path).model
    config.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    model.to(device).train()
    inputs = demo_mm_inputs(2, [(3, size, size)] * 2, num_items=[6, 4], num_classes=80)
    return [Trainer(copy.deepcopy(model), module, inputs) for module in modules]


def speed(args: argparse.Namespace) -> None:
    """Print the table of training times."""
    import mmdet

    modules = [load_compiled(), load_ours()]
    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    cuda = args.device != "cpu"
    print(
        machine(args.device),
        f"Two images of {args.size} x {args.size} pixels, "
        f"{args.rounds + 1} iterations, {'wall time' if cuda else 'CPU time'}.\n",
    )
    header = "| detector | compiled, s | ours, s | ratio | first losses differ by | last |"
    print(header + (" compiled, GiB | ours, GiB |" if cuda else ""))
    print("| --- |" + " ---: |" * (7 if cuda else 5))
    for name, config in DETECTORS.items():
        if args.only and not any(name.startswith(o) for o in args.only):
            continue
        trainers = build(folder / config, args.size, args.device, modules)
        for round_number in range(args.rounds + 1):
            order = trainers if round_number % 2 else trainers[::-1]
            for trainer in order:
                trainer.iterate(round_number, cuda)
        # The first iteration is a warm-up; ratios are computed per round.
        times = [t.seconds[1:] for t in trainers]
        ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
        medians = " | ".join(f"{statistics.median(t):.3f}" for t in times)
        losses = zip(*(t.losses for t in trainers), strict=True)
        differences = [f"{abs(a - b) / abs(a):.1e}" for a, b in losses]
        changes = f"{differences[0]} | {differences[-1]}"
        print(f"| {name} | {medians} | {ratio:.2f} | {changes} |", end="")
        memory = " | ".join(f"{t.bytes / 2**30:.2f}" for t in trainers)
        print(f" {memory} |" if cuda else "", flush=True)


def main() -> None:
    """Parse arguments and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for function in (equality, speed):
        command = commands.add_parser(function.__name__)
        command.set_defaults(function=function)
        command.add_argument("--device", default="cpu")
        command.add_argument("--only", nargs="*", help="prefixes of names")
    commands.choices["equality"].add_argument("--inputs", type=int, default=1000)
    commands.choices["speed"].add_argument("--rounds", type=int, default=10)
    commands.choices["speed"].add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
