"""What came out of the benchmark: tables, curves and how they were made, as one page."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from plan import BOXES, CLS, DAP, Benchmark

from dap.visualization import compare
from dap.visualization.runs import read_run
from dap.visualization.tables import markdown_line, mean_and_deviation

METRICS = ("AP", "AP50", "AP75", "agnostic/mAP", "agnostic/mAP_50")


def write_report(benchmark: Benchmark) -> str:
    """Write the report on the fine-tunings that there are.

    Args:
        benchmark: Its jobs have run, or some of them.

    Returns:
        The text of ``report/NAME/index.md``, NAME the target's.

    Raises:
        ValueError: If no fine-tuning has a result.
    """
    out = Path("report") / benchmark.target.name
    arms = {
        name: {k: found for k, made in by_k.items() if (found := _folders_of(made))}
        for name, by_k in benchmark.arms.items()
    }
    sections = []
    shots = {name: arms.get(name, {}) for name in (CLS.name, DAP.name)}
    if all(shots.values()):
        runs = [
            f"{name}={','.join(folder for folders in by_k.values() for folder in folders)}"
            for name, by_k in shots.items()
        ]
        compare(runs, out / "shots", CLS.name, METRICS)
        sections.append(("DAP and CLS", _written(out / "shots")))
    k = benchmark.one_k
    at_one_k = {name: by_k[k] for name, by_k in arms.items() if k in by_k}
    if len(at_one_k) > 2 and CLS.name in at_one_k:
        runs = [f"{name}={','.join(folders)}" for name, folders in at_one_k.items()]
        compare(runs, out / "arms", CLS.name, METRICS)
        sections.append((f"All ways of pre-training, {k} images a class", _written(out / "arms")))
    if not sections:
        raise ValueError("no two ways of pre-training have a result yet; run them first")
    sections.append((f"Recall of the RPN, {k} images a class", proposal_table(benchmark.proposals)))
    sections.append(("How it was made", _circumstances(benchmark)))
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections if body) + "\n"
    (out / "index.md").write_text(text, encoding="utf-8")
    return text


def proposal_table(proposals: Mapping[str, Sequence[str]]) -> str:
    """Average recall of 100 proposals an image, IoU .5 to .95, in percent.

    Args:
        proposals: Row → folders of tests; those without a result are left out.

    Returns:
        A Markdown table, mean ± standard deviation; empty if there is no result.
    """
    lines = []
    for row, folders in proposals.items():
        found = [
            read_run(Path(folder)).tested
            for folder in folders
            if list(Path(folder).glob("*/*.json"))
        ]
        values = [100 * result["coco/AR@100"] for result in found]
        if values:
            lines.append(markdown_line([row, mean_and_deviation(values, 1)]))
    head = [markdown_line(["RPN", "AR@100"]), markdown_line(["---"] * 2)]
    return "\n".join([*head, *lines]) if lines else ""


def _folders_of(checkpoints: Sequence[str]) -> list[str]:
    """Folders of the trainings that have ended."""
    return [str(Path(path).parent) for path in checkpoints if Path(path).exists()]


def _written(folder: Path) -> str:
    """The table of a comparison, its head starts, and its pictures."""
    words = (folder / "report.md").read_text(encoding="utf-8")
    heads = words.partition("## Head start\n")[2].partition("\n## ")[0].strip()
    pictures = [
        f"![{path.stem}]({folder.name}/{path.name})" for path in sorted(folder.glob("*.png"))
    ]
    table = (folder / "table.md").read_text(encoding="utf-8").strip()
    return "\n\n".join(part for part in (table, heads, *pictures) if part)


def _circumstances(benchmark: Benchmark) -> str:
    """Boxes, seeds, hardware and time."""
    boxes = json.loads((Path(BOXES).parent / "summary.json").read_text())
    merged, seconds = boxes["merged"], Path(f"{benchmark.target.name}_seconds.json")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    lines = [
        f"- {boxes['images']} photographs, {merged['boxes_per_image']:.3f} boxes per image, mean "
        f"{merged['mean_width']:.0f} x {merged['mean_height']:.0f} px, top-1 {boxes['top1']:.3f}",
        f"- {benchmark.target.name}: drawn from {benchmark.target.train}, evaluated on "
        f"{benchmark.target.test}; seeds of draws and fine-tunings "
        f"{', '.join(map(str, benchmark.seeds))}; pre-training seed 0",
        f"- {os.cpu_count()} CPU cores ({platform.machine()}), {device}, "
        f"torch {torch.__version__}, {benchmark.processes} trainings at a time",
    ]
    if seconds.exists():
        lines.append(f"- {json.loads(seconds.read_text()) / 60:.0f} minutes, all calls together")
    return "\n".join(lines)
