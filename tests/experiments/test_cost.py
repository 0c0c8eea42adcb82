"""GPU hours of the steps, by the paper's hours."""

import re
from pathlib import Path

import pytest

from dap.experiments import EXPERIMENTS, ConfigTree, Plan, find_experiment, list_experiments
from dap.experiments.cost import describe_total, gpu_hours
from dap.jobs import Launcher
from tests.support.plans import STEP_3, TREE, planned


def test_costs():
    """Worked out by hand from the paper's hours (section 4.1)."""
    jobs = {**planned("table2"), **planned("table1", ["cls-in1k"]), **planned("step3")}
    assert gpu_hours(jobs[STEP_3]) == (pytest.approx(28.8), True)
    assert gpu_hours(jobs["faster-rcnn_r50_fpn_444k_in14m-boxes"]) == (pytest.approx(281.6), True)
    assert gpu_hours(jobs["boxes_resnet50_in14m"]) == (pytest.approx(147.2), True)
    assert gpu_hours(jobs["boxes_resnet50_in1k"]) == (pytest.approx(13.87, abs=0.01), True)
    # Mean pixels of Step 3: 4/3 (96² + 160² + 320² + 640²) / 4 = 182,272; of COCO 4/3 800² =
    # 853,333; 90,000 x 16 images against 40,038 x 32: 28.8 · 1.1239 · 4.6816 = 151.5.
    coco = gpu_hours(jobs["faster-rcnn_r50-cls-in1k_fpn_90k_coco"])
    assert coco == (pytest.approx(151.5, abs=0.1), False)
    # 14 epochs of 5,011 images of 4/3 640² = 546,133 pixels: 28.8 · .05476 · 2.9963 = 4.72.
    voc = gpu_hours(jobs["faster-rcnn_r50-cls-in1k_fpn_14e_voc07"])
    assert voc == (pytest.approx(4.72, abs=0.01), False)
    # A classifier of IN-14M: 112 GPU hours for 90 epochs of IN-1M (the paper's reference).
    classifier = gpu_hours(jobs["cls_resnet50_64xb128_in14m"])
    assert classifier == (pytest.approx(112 * 50 * 14197122 / (90 * 1281167)), False)


def test_cost_does_not_depend_on_the_gpus():
    few = planned("table2", ["07", "cls-in1k"], batch_per_gpu=2)
    more = planned("table2", ["07", "cls-in1k"], launcher=Launcher(8))
    name = "faster-rcnn_r50-cls-in1k_fpn_14e_voc07"
    assert gpu_hours(few[name]) == gpu_hours(more[name])
    few = planned("step3", ["retinanet"], batch_per_gpu=2)["retinanet_r50_fpn_80k_in1k-boxes"]
    more = planned("step3", ["retinanet"])["retinanet_r50_fpn_80k_in1k-boxes"]
    assert gpu_hours(few)[0] == pytest.approx(gpu_hours(more)[0])
    # A k-shot run of 2 images sees 8 times the iterations of one of 16.
    few = planned("figure3", ["5shot", "cls-in1k"], batch_per_gpu=2)
    more = planned("figure3", ["5shot", "cls-in1k"])
    name = "faster-rcnn_r50-cls-in1k_fpn_coco-5shot"
    assert gpu_hours(few[name])[0] == pytest.approx(gpu_hours(more[name])[0])


def test_cost_of_k_shot_runs_follows_their_length():
    """16 images of 4/3 640² pixels: .5388 hours for 500 iterations, 3 x that for 1500."""
    short = planned("figure4", ["5shot", "cls-in1k"])["faster-rcnn_r50-cls-in1k_fpn_voc-5shot"]
    jobs = planned("figure4", ["5shot", "cls-in1k"], iterations=1500)
    longer = jobs["faster-rcnn_r50-cls-in1k_fpn_voc-5shot_1500it"]
    assert gpu_hours(short)[0] == pytest.approx(0.5388, abs=0.001)
    assert gpu_hours(longer)[0] == pytest.approx(3 * 0.5388, abs=0.001)


def test_cost_of_every_step_is_known():
    for name in EXPERIMENTS:
        for job in planned(name).values():
            assert gpu_hours(job).hours is not None, job.name


def test_gpu_hours_in_the_docs_are_those_of_the_list():
    """Also its share of another step's: ``2140, of which step1 1724``."""
    listed = {
        line.split("|")[1].strip(): int(line.split("|")[4].split(",")[0])
        for line in list_experiments(TREE).splitlines()[2:]
    }
    seen = set()
    page = Path("docs/reproduce.md").read_text()
    for line in page.splitlines():
        cells = line.split("|")
        if not line.startswith("| `") or len(cells) != 6:
            continue
        names = re.findall(r"`([\w.-]+)`", cells[1])
        hours, *parts = cells[4].split(", of which ")
        for name in names:
            assert int(hours) == listed[name], name
        jobs = planned(names[0])
        for name, part in (part.split() for part in parts):
            shared = [gpu_hours(jobs[other]).hours for other in planned(name) if other in jobs]
            assert int(part) == round(sum(shared)), line
        seen |= set(names)
    assert seen == set(EXPERIMENTS)
    assert "`--only` runs single rows: `table2 --only 07 dap-in1k` costs 47." in page
    assert "about 47 GPU hours" in describe_total(planned("table2", ["07", "dap-in1k"]).values())


OWN = """
auto_scale_lr = None
small = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
         dict(type='RandomResize', scale=[(96, 64), (96, 80)], keep_ratio=True),
         dict(type='PackDetInputs')]
_base_.train_dataloader.dataset.pipeline = small
whole = _base_.train_dataloader.dataset
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=3, dataset=whole))
"""


def own_tree(tmp_path, name, text, folder="finetune/voc07"):
    """One's own tree of configs: one that inherits the shipped one of its name."""
    path = tmp_path / "configs" / folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"_base_ = [{str(TREE.path(name).resolve())!r}]\n{text}")
    return ConfigTree(tmp_path / "configs")


def test_own_config_with_any_pipeline_and_no_scaling(tmp_path):
    """Random sizes, a repeated data set and no ``auto_scale_lr``: planned, with a cost."""
    name = "faster-rcnn_r50-cls-in1k_fpn_14e_voc07"
    plan = Plan(own_tree(tmp_path, name, OWN), Launcher(4))
    plan.add(find_experiment("table2").select(("07", "cls-in1k")))
    job = plan.jobs[name]
    assert gpu_hours(job) == (4.725, False)
    assert job.batch == 8  # 2 images on each of 4 GPUs: nothing says another batch
    assert job.config.total_batch == 8
    assert "data/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt" in job.inputs


def test_step_of_unknown_cost_is_named(tmp_path):
    name = "faster-rcnn_r50-cls-in1k_fpn_14e_voc07"
    first = own_tree(tmp_path, name, "")._roots[name][0] / "pretrain" / "my-pretraining.py"
    first.parent.mkdir()
    first.write_text(f"_base_ = [{str(TREE.path(name).resolve())!r}]\n")
    text = "load_from = 'work_dirs/my-pretraining/epoch_14.pth'\n"
    plan = Plan(own_tree(tmp_path, name, text))
    plan.add(find_experiment("table2").select(("07", "cls-in1k")))
    said = describe_total(plan.jobs.values())
    assert said.endswith(", without the steps of unknown cost: my-pretraining")
