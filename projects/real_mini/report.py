"""What came out of the benchmark: tables, curves and how they were made, as one page."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from plan import BOXES, CLS, DAP, Benchmark

from dap.comparison import compare
from dap.comparison.curves import read_log
from dap.comparison.runs import read_run
from dap.comparison.tables import markdown_line, mean_and_deviation

METRICS = ("AP", "AP50", "AP75", "agnostic/mAP", "agnostic/mAP_50")
ON_THE_WAY = {"AP": "coco/bbox_mAP", "AP50": "coco/bbox_mAP_50"}
# Arm → (k, seed) → (metric, iteration) → percent.
Measured = Mapping[str, Mapping[tuple[int | None, int], Mapping[tuple[str, int], float]]]


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
    silent = [folder for folder in _ended(benchmark) if not read_log(folder).validations]
    arms = {
        name: {k: found for k, made in by_k.items() if (found := _folders_of(made, silent))}
        for name, by_k in benchmark.arms.items()
    }
    sections = []
    shots = {
        name: by_k
        for name, by_k in arms.items()
        if by_k and (name in (CLS.name, DAP.name) or len(by_k) > 1)
    }
    if len(shots) > 1 and CLS.name in shots:
        runs = [
            f"{name}={','.join(folder for folders in by_k.values() for folder in folders)}"
            for name, by_k in shots.items()
        ]
        compare(runs, out / "shots", CLS.name, METRICS)
        sections.append(("By images per class", _written(out / "shots")))
    for k in benchmark.at:
        at_one_k = {name: by_k[k] for name, by_k in arms.items() if k in by_k}
        if len(at_one_k) > 2 and CLS.name in at_one_k:
            runs = [f"{name}={','.join(folders)}" for name, folders in at_one_k.items()]
            folder = out / f"arms_{k}"
            compare(runs, folder, CLS.name, METRICS)
            sections.append((f"All ways of pre-training, {k} images per class", _written(folder)))
    if not sections:
        raise ValueError("no two ways of pre-training have a result yet; run them first")
    found = measured(benchmark)
    sections.append(("On the way", way_table(found)))
    sections.append(("Differences, paired by k and seed", paired_table(found, benchmark.at)))
    title = f"Recall of the RPN, {benchmark.one_k} images per class"
    sections.append((title, proposal_table(benchmark.proposals)))
    sections.append(("How it was made", _circumstances(benchmark, silent)))
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections if body) + "\n"
    (out / "index.md").write_text(text, encoding="utf-8")
    return text


def measured(benchmark: Benchmark) -> Measured:
    """Read the validations of all fine-tunings that have ended; 0 where nothing was detected."""
    return {
        name: {
            (k, seed): _on_the_way(Path(path).parent)
            for k, made in by_k.items()
            for seed, path in zip(benchmark.seeds, made, strict=True)
            if Path(path).exists()
        }
        for name, by_k in benchmark.arms.items()
    }


def _on_the_way(folder: Path) -> dict[tuple[str, int], float]:
    log = read_log(folder)
    rows = [*log.validations, *({"iteration": i} for i in log.without_result)]
    return {
        (label, int(row["iteration"])): 100 * row.get(key, 0.0)
        for label, key in ON_THE_WAY.items()
        for row in rows
    }


def way_table(found: Measured) -> str:
    """AP and AP50 at each validation, mean ± standard deviation over seeds, as Markdown."""
    columns = _columns(found)
    lines = [["arm", "images", *(f"{label} at {i}" for label, i in columns)]]
    for name, runs in found.items():
        for k in dict.fromkeys(k for k, _ in runs):
            own = [run for (other, _), run in runs.items() if other == k]
            values = [[run[column] for run in own if column in run] for column in columns]
            cells = [mean_and_deviation(value, 1) for value in values]
            lines.append([name, "all" if k is None else str(k), *cells])
    return _markdown(lines)


def paired_table(found: Measured, at: Sequence[int]) -> str:
    """Differences between two arms of the same k and seed, as Markdown.

    Args:
        found: See :func:`measured`.
        at: Images per class at which all arms are compared.

    Returns:
        Mean ± standard error of the pairs and how many of them are above zero. Arms at several k
        are compared with CLS over all of them; at each k of ``at`` every arm is compared with CLS,
        or the CLS of its own kind, and with DAP.
    """
    rows: list[tuple[str, str, int | None]] = [
        (name, CLS.name, None)
        for name, runs in found.items()
        if name != CLS.name and len({k for k, _ in runs}) > 1
    ]
    for k, name in ((k, name) for k in at for name in found):
        twin = name.replace(DAP.name, CLS.name)
        if twin != name and twin in found:
            rows.append((name, twin, k))
        elif not name.startswith(CLS.name):
            rows += [(name, other, k) for other in (CLS.name, DAP.name)]
    columns = _columns(found)
    lines = [["pairs", *(f"{label} at {i}" for label, i in columns)]]
    for name, other, k in rows:
        pairs = [
            (run, found[other][key])
            for key, run in found.get(name, {}).items()
            if key in found.get(other, {}) and k in (None, key[0])
        ]
        if pairs:
            cells = [
                _difference([a[key] - b[key] for a, b in pairs if key in a and key in b])
                for key in columns
            ]
            where = "all k" if k is None else f"{k} images"
            lines.append([f"{name} - {other}, {where}", *cells])
    return _markdown(lines) if len(lines) > 1 else ""


def _columns(found: Measured) -> list[tuple[str, int]]:
    """All metrics and iterations, by metric."""
    keys = {key for runs in found.values() for run in runs.values() for key in run}
    return sorted(keys, key=lambda key: (list(ON_THE_WAY).index(key[0]), key[1]))


def _difference(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.fmean(values):+.1f}"
    if len(values) == 1:
        return mean
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{mean} ± {error:.1f}, {sum(value > 0 for value in values)} of {len(values)}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = lines
    return "\n".join(map(markdown_line, [head, ["---"] * len(head), *body]))


def proposal_table(proposals: Mapping[str, Sequence[str]]) -> str:
    """Average recall of 100 proposals an image, IoU .5 to .95, in percent.

    Args:
        proposals: Row → folders of tests; those without a result are left out.

    Returns:
        A Markdown table, mean ± standard deviation; empty if there is no result.
    """
    lines = [["RPN", "AR@100"]]
    for row, folders in proposals.items():
        found = [
            read_run(Path(folder)).test_results
            for folder in folders
            if list(Path(folder).glob("*/*.json"))
        ]
        values = [100 * result["coco/AR@100"] for result in found]
        if values:
            lines.append([row, mean_and_deviation(values, 1)])
    return _markdown(lines) if len(lines) > 1 else ""


def _ended(benchmark: Benchmark) -> list[str]:
    """Folders of all fine-tunings that have ended."""
    arms = benchmark.arms.values()
    return [folder for by_k in arms for made in by_k.values() for folder in _folders_of(made)]


def _folders_of(checkpoints: Sequence[str], without: Sequence[str] = ()) -> list[str]:
    """Folders of the trainings that have ended, but some."""
    folders = [str(Path(path).parent) for path in checkpoints if Path(path).exists()]
    return [folder for folder in folders if folder not in without]


def _written(folder: Path) -> str:
    """The table of a comparison, its head starts, and its pictures."""
    words = (folder / "report.md").read_text(encoding="utf-8")
    heads = words.partition("## Head start\n")[2].partition("\n## ")[0].strip()
    pictures = [
        f"![{path.stem}]({folder.name}/{path.name})" for path in sorted(folder.glob("*.png"))
    ]
    table = (folder / "table.md").read_text(encoding="utf-8").strip()
    return "\n\n".join(part for part in (table, heads, *pictures) if part)


def _circumstances(benchmark: Benchmark, silent: Sequence[str]) -> str:
    """Boxes, seeds, hardware and time."""
    summary = Path(BOXES).parent / "summary.json"
    boxes = json.loads(summary.read_text())
    merged, failed = boxes["merged"], boxes["failed"]
    seconds = Path(f"{benchmark.target.name}_seconds.json")
    repeated = ", ".join(benchmark.repeated)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    lines = [
        f"- {boxes['images']} photographs"
        + (f" ({len(failed)} more failed, named in {summary})" if failed else "")
        + f", {merged['boxes_per_image']:.3f} boxes per image, mean "
        f"{merged['mean_width']:.0f} x {merged['mean_height']:.0f} px, top-1 {boxes['top1']:.3f}",
        f"- {benchmark.target.name}: drawn from {benchmark.target.train}, evaluated on "
        f"{benchmark.target.test}; seeds of draws and fine-tunings "
        f"{', '.join(map(str, benchmark.seeds))}; seed of pre-trainings 0"
        + (f", on {repeated} boxes that of the fine-tuning" if repeated else ""),
        f"- {os.cpu_count()} CPU cores ({platform.machine()}), {device}, "
        f"torch {torch.__version__}, {benchmark.processes} trainings at a time",
    ]
    if silent:
        lines.append(
            f"- nothing was detected at any checkpoint of {', '.join(silent)}: AP 0 on the way and "
            "in the pairs, left out of the other tables"
        )
    if seconds.exists():
        lines.append(f"- {json.loads(seconds.read_text()) / 60:.0f} minutes, all calls together")
    return "\n".join(lines)
