"""Build and run the detectors of MMDetection's config folder on a small input.

    python tools/benchmarks/mmdet_zoo.py run --results zoo.jsonl
    python tools/benchmarks/mmdet_zoo.py table --results zoo.jsonl --out docs/mmdet_zoo.md

Of the configs with the same set of component types, only the one with the shallowest
backbone is run; at least one config is run per folder. A run consists of loss and backward
on two images and prediction on one, of 128 x 128 pixels (256 or 512 if the detector needs
it), with random weights and at most 64 sampled RoIs per image, in a separate process with a
time limit. Results are appended to the results file, and configs in it are not run again.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

from mmdet_zoo_models import SIZES, component_types, run_config


def choose(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Choose the configs to run.

    Returns:
        Paths below ``folder``, starting with one of each subfolder, and the number of configs
        that each path represents.
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


def _child(path: Path, log: str, connection: Any) -> None:
    """Run one config in a forked process, its output in a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    connection.send(run_config(path))


def run_limited(path: Path, log: str, limit: float) -> dict[str, Any]:
    """Run one config in a separate process, for at most ``limit`` seconds."""
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
    """Read results by config name; the last line of a config is used."""
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
