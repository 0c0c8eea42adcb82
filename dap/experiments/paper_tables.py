"""Build the rows of the paper's tables and figures from runs of the configs.

The figures that the paper prints are in :mod:`.paper` or in the functions below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from dap.visualization.variants import PAPER_A1

from .catalogue import Cell, Experiment, Row, Run
from .paper_runs import PRETRAIN

VOC = {"AP50": "voc_area/mAP", "AP50 11 points": "voc_07/mAP"}
COCO = {
    "AP": "coco/bbox_mAP",
    "AP50": "coco/bbox_mAP_50",
    "AP75": "coco/bbox_mAP_75",
    "APs": "coco/bbox_mAP_s",
    "APm": "coco/bbox_mAP_m",
    "APl": "coco/bbox_mAP_l",
}
BOXES = {
    "boxes/image": "merged.boxes_per_image",
    "mean width": "merged.mean_width",
    "mean height": "merged.mean_height",
}
Columns = Iterable[tuple[str, str, str]]  # title, schedule of the fine-tuning, metric
THREE_SETS = (
    ("COCO AP", "90k_coco", COCO["AP"]),
    ("VOC07 AP50", "14e_voc07", VOC["AP50"]),
    ("VOC0712 AP50", "14e_voc0712", VOC["AP50"]),
)
STARTS = ("cls-in1k", "dap-in1k", "cls-in14m", "dap-in14m")
SHOTS = ("5shot", "10shot", "20shot", "50shot", "100shot")
DECIMALS = {"boxes/image": 3, "mean width": 1, "mean height": 1}
Figures = Iterable[float | None]
# Start → start that it is compared with.
TWINS = {
    "dap-in1k": "cls-in1k",
    "dap-in14m": "cls-in14m",
    "dap-frozen-in1k": "cls-in1k",
    "det-in200": "cls-in1k",
}
# Figures that the paper prints inconsistently: run, column → remark.
NOTES = {
    ("faster-rcnn_r50-dap-in1k_fpn_90k_coco", "APl"): (
        "The paper prints 48.34 and, in the same table, a difference of +0.83 to the 48.51 of CLS. "
        "These do not fit: 48.34 is .17 below CLS, and +0.83 would be 49.34."
    ),
}


def metric_cells(run: Run, metrics: Mapping[str, str], paper: Figures) -> tuple[Cell, ...]:
    """Cells of one run.

    Args:
        run: Run of all cells.
        metrics: Column → name of its metric.
        paper: The paper's figure of each column.
    """
    return tuple(
        Cell(column, run, metric, figure, DECIMALS.get(column, 2))
        for (column, metric), figure in zip(metrics.items(), paper, strict=True)
    )


def fine_tuned(
    name: str, columns: Columns, paper: Figures, detector: str = "faster-rcnn_r50"
) -> Row:
    """Row of a detector that is fine-tuned from one start.

    Args:
        name: Name of the row. One of its words is the start, ``'dap-in1k'``; the row is compared
            with the row of the same name with the start's twin.
        columns: Title, schedule and metric of each column. Schedules are suffixes of config names;
            ``'voc-5shot'`` is the schedule ``'5shot'`` of ``…_voc-kshot``.
        paper: The paper's figure of each column.
        detector: Prefix of the config names.
    """
    start = next(word for word in name.split() if "-in" in word)
    cells = []
    for (column, schedule, metric), figure in zip(columns, paper, strict=True):
        run = Run(f"{detector}-{start}_fpn_{schedule}")
        data, _, shots = schedule.partition("-")
        if "shot" in shots:
            run = replace(run, config=f"{detector}-{start}_fpn_{data}-kshot", shots=shots)
        cells.append(Cell(column, run, metric, figure, note=NOTES.get((run.name, column), "")))
    twin = TWINS.get(start)
    return Row(name, tuple(cells), twin and name.replace(start, twin))


def coco_table(name: str, title: str, detector: str, paper: Mapping[str, Figures]) -> Experiment:
    """Table of fine-tunings on COCO; ``paper`` is start → figures of the columns of ``COCO``."""
    columns = [(column, "90k_coco", metric) for column, metric in COCO.items()]
    rows = (fine_tuned(start, columns, figures, detector) for start, figures in paper.items())
    return Experiment(name, title, tuple(rows))


def voc_row(name: str, schedule: str, paper: Figures, detector: str = "faster-rcnn_r50") -> Row:
    """Row of a fine-tuning on VOC, see :func:`fine_tuned`; ``paper`` has figures of ``VOC``."""
    columns = [(column, schedule, metric) for column, metric in VOC.items()]
    return fine_tuned(name, columns, paper, detector)


def voc_table(name: str, title: str, detector: str, paper: Mapping[str, Figures]) -> Experiment:
    """Table of fine-tunings on VOC; ``paper`` is years and start → figures of ``VOC``."""
    rows = (
        voc_row(row, f"14e_voc{row.split()[0]}", figures, detector)
        for row, figures in paper.items()
    )
    return Experiment(name, title, tuple(rows))


def k_shot_figure(name: str, title: str, data: str, column: str, metric: str) -> Experiment:
    """Figures 3 and 4. The paper prints only the 5-shot results of IN-1M (Table 10)."""
    printed = {
        ("voc", "cls-in1k"): 26.7,
        ("voc", "dap-in1k"): 40.1,
        ("coco", "cls-in1k"): 7.13,
        ("coco", "dap-in1k"): 9.88,
    }
    rows = []
    for shots in SHOTS:
        for start in STARTS:
            paper = printed.get((data, start)) if shots == "5shot" else None
            columns = [(column, f"{data}-{shots}", metric)]
            rows.append(fine_tuned(f"{shots} {start}", columns, [paper]))
    return Experiment(name, title, tuple(rows))


def boxes_table(name: str, title: str, paper: Mapping[str, tuple[str, Figures]]) -> Experiment:
    """Tables A1 and A2: statistics of the boxes, and results of detectors trained on them."""
    rows = (_boxes_row(row, variant, list(figures)) for row, (variant, figures) in paper.items())
    return Experiment(name, title, tuple(rows))


def release_table(table: Experiment) -> Experiment:
    """Statistics of Tables A1 and A2 by the release's rule, which gave the printed values."""
    rows = []
    for row in table.rows:
        folder = row.cells[0].run.name.replace("in1k", "in1k_release")
        cells = (Cell(c.column, Run(folder), c.metric, c.paper, c.decimals) for c in row.cells[:3])
        rows.append(Row(row.name, tuple(cells)))
    title = f"{table.title}: boxes by the rule of the official release"
    return Experiment(f"{table.name}-release", title, tuple(rows))


def _boxes_row(name: str, variant: str, paper: list[float | None]) -> Row:
    """Row of one set of boxes; for the main setting, the runs are those of Tables 1 and 2."""
    boxes = metric_cells(Run(f"boxes_resnet50_in1k{variant}"), BOXES, paper[:3])
    detectors = fine_tuned("dap-in1k", THREE_SETS, paper[3:]).cells
    on_boxes = (replace(cell, run=_on_boxes(cell.run, variant)) for cell in detectors)
    return Row(name, (*boxes, *on_boxes))


def _on_boxes(run: Run, variant: str) -> Run:
    """The same fine-tuning, of a detector that was pre-trained on other boxes."""
    if not variant:
        return run
    checkpoint = f"work_dirs/{PRETRAIN}{variant}/iter_40038.pth"
    return Run(run.config, {"model.init_cfg.checkpoint": checkpoint}, run.config + variant)


def steps_without_figures(name: str, title: str, configs: Mapping[str, str]) -> Experiment:
    """Steps whose runs have no figures."""
    rows = (Row(row, (Cell("", Run(config)),)) for row, config in configs.items())
    return Experiment(name, title, tuple(rows))


def step2_table() -> Experiment:
    """Step 2. The paper's figures of IN-1M are those of Table A1, made by the release."""
    printed, unknown = PAPER_A1["all"], (None, None, None)
    folders = {
        "r50 in1k": ("boxes_resnet50_in1k", printed),
        "r101 in1k": ("boxes_resnet101_in1k", unknown),
        "r50 in14m": ("boxes_resnet50_in14m", unknown),
        "r101 in14m": ("boxes_resnet101_in14m", unknown),
        "release": ("boxes_resnet50_in1k_release", printed),
    }
    rows = (
        Row(name, metric_cells(Run(folder), BOXES, figures))
        for name, (folder, figures) in folders.items()
    )
    return Experiment("step2", "pseudo boxes", tuple(rows))
