"""The tables and figures of the paper, as runs of the configs (DAP, section 4 and appendix A)."""

from __future__ import annotations

from dap.visualization.variants import PAPER_A1, PAPER_A2

from .catalogue import Experiment, Row, Run
from .paper_runs import PRETRAIN
from .paper_tables import (
    COCO,
    STARTS,
    THREE_SETS,
    VOC,
    boxes_table,
    coco_table,
    fine_tuned,
    k_shot_figure,
    metric_cells,
    release_table,
    step2_table,
    steps_without_figures,
    voc_row,
    voc_table,
)

LONGER = (
    ("VOC 5-shot 1x", "voc-5shot", VOC["AP50"]),
    ("VOC 5-shot 3x", "voc-5shot-3x", VOC["AP50"]),
    ("COCO 5-shot 1x", "coco-5shot", COCO["AP"]),
    ("COCO 5-shot 3x", "coco-5shot-3x", COCO["AP"]),
    ("COCO 1x", "90k_coco", COCO["AP"]),
    ("COCO 3x", "270k_coco", COCO["AP"]),
)
TABLE_A1 = boxes_table(
    "tableA1",
    "CAM thresholds",
    {
        "tau0.2": ("_tau0.2", (*PAPER_A1["0.2"], 36.89, 79.47, 84.35)),
        "tau0.3": ("_tau0.3", (*PAPER_A1["0.3"], 36.82, 79.57, 84.41)),
        "tau0.4": ("_tau0.4", (*PAPER_A1["0.4"], 36.90, 79.13, 84.76)),
        "tau0.5": ("_tau0.5", (*PAPER_A1["0.5"], 36.97, 79.06, 84.61)),
        "multi": ("", (*PAPER_A1["all"], 37.25, 79.93, 84.49)),
    },
)
TABLE_A2 = boxes_table(
    "tableA2",
    "NMS IoU of the pseudo boxes",
    {
        "nms0.5": ("_nms0.5", (*PAPER_A2["0.5"], 37.12, 79.50, 84.09)),
        "nms0.6": ("_nms0.6", (*PAPER_A2["0.6"], 36.98, 79.41, 84.54)),
        "nms0.7": ("_nms0.7", (*PAPER_A2["0.7"], 37.13, 79.49, 84.30)),
        "nms0.8": ("", (*PAPER_A2["0.8"], 37.25, 79.93, 84.49)),
        "nms0.9": ("_nms0.9", (*PAPER_A2["0.9"], 37.26, 79.39, 84.32)),
        "nms1.0": ("_nms1.0", (*PAPER_A2["none"], 37.02, 79.51, 84.36)),
    },
)
EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        steps_without_figures(
            "step1",
            "classifiers of ImageNet-14M (those of ImageNet-1k are torchvision's)",
            {
                "r50 in14m": "cls_resnet50_64xb128_in14m",
                "r101 in14m": "cls_resnet101_64xb128_in14m",
            },
        ),
        step2_table(),
        steps_without_figures(
            "step3",
            "pre-trained detectors",
            {
                "faster-rcnn r50 in1k": PRETRAIN,
                "faster-rcnn r101 in1k": "faster-rcnn_r101_fpn_40k_in1k-boxes",
                "retinanet r50 in1k": "retinanet_r50_fpn_80k_in1k-boxes",
                "faster-rcnn r50 in1k frozen": f"{PRETRAIN}_frozen-backbone",
                "faster-rcnn r50 in14m": "faster-rcnn_r50_fpn_444k_in14m-boxes",
                "faster-rcnn r101 in14m": "faster-rcnn_r101_fpn_444k_in14m-boxes",
                "faster-rcnn r50 in200-det": "faster-rcnn_r50_fpn_5e_in200-det",
            },
        ),
        coco_table(
            "table1",
            "COCO, Faster R-CNN R-50",
            "faster-rcnn_r50",
            {
                "cls-in1k": (36.73, 58.04, 39.72, 20.57, 39.56, 48.51),
                "dap-in1k": (37.25, 58.98, 40.46, 21.71, 40.64, 48.34),
                "cls-in14m": (38.87, 61.87, 42.41, 23.79, 42.15, 49.89),
                "dap-in14m": (39.57, 63.05, 43.02, 24.03, 42.96, 51.15),
            },
        ),
        voc_table(
            "table2",
            "VOC 07 and 07+12, Faster R-CNN R-50",
            "faster-rcnn_r50",
            {
                "07 cls-in1k": (77.36, 75.00),
                "07 dap-in1k": (79.93, 77.57),
                "07 cls-in14m": (80.74, 78.29),
                "07 dap-in14m": (84.24, 81.54),
                "0712 cls-in1k": (83.77, 80.97),
                "0712 dap-in1k": (84.49, 82.00),
                "0712 cls-in14m": (86.91, 83.56),
                "0712 dap-in14m": (87.84, 84.53),
            },
        ),
        Experiment(
            "table3",
            "pre-training with a frozen backbone",
            (
                fine_tuned("cls-in1k", THREE_SETS, (36.73, 77.36, 83.77)),
                fine_tuned("dap-in1k", THREE_SETS, (37.25, 79.93, 84.49)),
                fine_tuned("dap-frozen-in1k", THREE_SETS, (36.89, 78.86, 83.91)),
            ),
        ),
        coco_table(
            "table4",
            "COCO, Faster R-CNN R-101",
            "faster-rcnn_r101",
            {
                "cls-in1k": (39.11, 61.06, 42.59, 22.98, 42.35, 50.50),
                "dap-in1k": (39.28, 61.32, 42.81, 23.45, 42.70, 51.47),
                "cls-in14m": (43.18, 66.76, 47.31, 26.29, 47.21, 55.55),
                "dap-in14m": (43.92, 67.16, 48.39, 27.41, 48.18, 56.37),
            },
        ),
        voc_table(
            "table5",
            "VOC 07 and 07+12, Faster R-CNN R-101",
            "faster-rcnn_r101",
            {
                "07 cls-in1k": (78.02, 75.73),
                "07 dap-in1k": (80.95, 78.03),
                "07 cls-in14m": (84.58, 81.88),
                "07 dap-in14m": (86.63, 83.71),
                "0712 cls-in1k": (84.91, 81.81),
                "0712 dap-in1k": (85.49, 82.43),
                "0712 cls-in14m": (89.41, 85.92),
                "0712 dap-in14m": (90.69, 86.55),
            },
        ),
        coco_table(
            "table6",
            "COCO, RetinaNet R-50",
            "retinanet_r50",
            {
                "cls-in1k": (36.22, 55.11, 38.56, 19.72, 39.56, 48.74),
                "dap-in1k": (36.96, 55.99, 39.43, 20.41, 40.20, 50.61),
            },
        ),
        voc_table(
            "table7",
            "VOC 07 and 07+12, RetinaNet R-50",
            "retinanet_r50",
            {
                "07 cls-in1k": (75.12, 72.91),
                "07 dap-in1k": (77.95, 75.80),
                "0712 cls-in1k": (81.48, 78.69),
                "0712 dap-in1k": (84.18, 81.15),
            },
        ),
        Experiment(
            "table8",
            "ILSVRC DET as the pre-training set",
            (
                fine_tuned("cls-in1k", THREE_SETS[1:], (77.36, 83.77)),
                fine_tuned("dap-in1k", THREE_SETS[1:], (79.93, 84.49)),
                fine_tuned("cls-in14m", THREE_SETS[1:], (80.74, 86.91)),
                fine_tuned("dap-in14m", THREE_SETS[1:], (84.24, 87.84)),
                fine_tuned("det-in200", THREE_SETS[1:], (80.53, 84.01)),
            ),
        ),
        Experiment(
            "table9",
            "self-training on VOC 2012 trainval",
            (  # rows without self-training have the runs of Table 2
                voc_row("cls-in1k", "14e_voc07", (77.36, 75.00)),
                voc_row("cls-in1k self-training", "2e_voc07-pseudo12", (77.98, 75.71)),
                voc_row("dap-in1k", "14e_voc07", (79.52, 76.82)),
                voc_row("dap-in1k self-training", "2e_voc07-pseudo12", (80.50, 78.02)),
            ),
        ),
        Experiment(
            "table10",
            "three times the schedule",
            (
                fine_tuned("cls-in1k", LONGER, (26.7, 27.3, 7.13, 7.03, 36.73, 37.24)),
                fine_tuned("dap-in1k", LONGER, (40.1, 40.9, 9.88, 9.20, 37.25, 37.45)),
            ),
        ),
        k_shot_figure("figure3", "COCO, k images per class", "coco", "AP", COCO["AP"]),
        k_shot_figure("figure4", "VOC, k images per class", "voc", "AP50", VOC["AP50"]),
        Experiment(
            "figure5",  # the last point of each curve; the curves are written to a CSV file
            "learning curves on COCO and VOC 2007",
            (
                *(
                    fine_tuned(f"coco {start}", [("AP", "90k_coco", COCO["AP"])], [figure])
                    for start, figure in zip(STARTS, (36.73, 37.25, 38.87, 39.57), strict=True)
                ),
                *(
                    fine_tuned(f"07 {start}", [("AP50", "4500it_voc07", VOC["AP50"])], [None])
                    for start in STARTS
                ),
            ),
        ),
        Experiment(
            "section4.3",
            "the pre-trained detector as a classifier of ImageNet-1k",
            (
                Row(
                    "dap-in1k",
                    metric_cells(
                        Run(
                            "faster-rcnn_r50_fpn_40k_in1k-val",
                            checkpoint=f"work_dirs/{PRETRAIN}/iter_40038.pth",
                        ),
                        {"top-1": "classification/top1", "top-5": "classification/top5"},
                        (62.73, 85.99),
                    ),
                ),
            ),
        ),
        TABLE_A1,
        TABLE_A2,
        release_table(TABLE_A1),
        release_table(TABLE_A2),
    )
}
