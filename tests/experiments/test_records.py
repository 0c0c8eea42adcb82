"""Digests of inputs beside results: what is refused, made again, or still finished."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dap.experiments import ConfigTree, Plan, Row, find_experiment, report
from dap.experiments.results import find_problems, table
from dap.jobs import Job
from dap.jobs.jobs import Jobs
from dap.jobs.records import begin_record, digest, end_record
from dap.jobs.running import run_job
from dap.jobs.state import finished_line, is_finished, latest_result
from dap.store.writer import StoreWriter

TREE = ConfigTree()
PRETRAINING = "faster-rcnn_r50_fpn_40k_in1k-boxes"
DAP = "faster-rcnn_r50-dap-in1k_fpn_14e_voc07"
STAMP = "20260101_000000"


def planned(root, name="table2", only=("07", "dap-in1k")):
    plan = Plan(TREE, root=str(root))
    plan.add(find_experiment(name).select(only))
    return plan


def train(job, content="weights", recorded=True):
    """What MMEngine and the tool leave of a training."""
    if recorded:
        begin_record(job)
    checkpoint = Path(job.makes)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    config = job.config.copy()
    config.merge_from_dict({"work_dir": str(checkpoint.parent), "launcher": "none"})
    config.dump(checkpoint.parent / Path(config.filename).name)
    checkpoint.write_text(content)
    checkpoint.with_name("last_checkpoint").write_text(str(checkpoint))
    if recorded:
        end_record(job, job.makes)


def measure(job, ap50=0.5, stamp=STAMP, recorded=True):
    """What MMEngine and the tool leave of a test."""
    if recorded:
        begin_record(job)
    out = Path(job.makes).parents[1]
    result = out / stamp / f"{stamp}.json"
    result.parent.mkdir(parents=True)
    config = job.config.copy()
    config.merge_from_dict({"work_dir": str(out), "load_from": job.inputs[0]})
    config.dump(out / Path(config.filename).name)
    result.write_text(json.dumps({"voc_area/mAP": ap50}))
    if recorded:
        end_record(job, str(result))


def chain(root, recorded=True):
    """Pre-training, fine-tuning and test of a row."""
    plan = planned(root)
    train(plan.jobs[PRETRAINING], "pretrained", recorded)
    train(plan.jobs[DAP], "fine-tuned", recorded)
    measure(plan.jobs[f"{DAP}/test"], recorded=recorded)
    return plan


def chosen(plan):
    return [plan.jobs[name] for name in (PRETRAINING, DAP, f"{DAP}/test")]


def test_dates_do_not_matter(tmp_path):
    plan = chain(tmp_path / "runs")
    for age, job in enumerate(chosen(plan)):  # the first is now the newest
        os.utime(latest_result(job), (2e9 - age * 1e6,) * 2)
    assert all(is_finished(job) for job in chosen(plan))


@pytest.mark.parametrize("recorded", [True, False])
def test_copied_work_directory_is_still_finished(tmp_path, recorded):
    """``cp -r`` gives new dates, here also another name: paths in configs and records follow."""
    chain(tmp_path / "work_dirs", recorded)
    shutil.copytree(tmp_path / "work_dirs", tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(tmp_path / "work_dirs")
    plan = planned(tmp_path / "copy")
    assert all(is_finished(job) for job in chosen(plan))
    assert not find_problems(find_experiment("table2").rows[1:2], plan, [None])
    Path(plan.jobs[PRETRAINING].makes).write_text("other weights")
    if recorded:
        with pytest.raises(ValueError, match=r"copy/.*iter_40038\.pth \(sha256:"):
            is_finished(plan.jobs[DAP])


def test_relative_work_directory_copied_with_its_paths(tmp_path, monkeypatch):
    """``work_dirs`` in the configs stands for it, also where a path is not of one of the jobs."""
    monkeypatch.chdir(tmp_path)
    name = "faster-rcnn_r50-cls-in1k_fpn_14e_voc07"
    own = tmp_path / "configs" / TREE.folder(name) / f"{name}.py"
    own.parent.mkdir(parents=True)
    foreign = "work_dirs/from-elsewhere/weights.pth"
    own.write_text(f"_base_ = [{str(TREE.path(name).resolve())!r}]\nload_from = {foreign!r}\n")
    for root in ("work_dirs", "copy"):
        plan = Plan(ConfigTree("configs"), root=root)
        plan.add(find_experiment("table2").select(("07", "cls-in1k")))
        if root == "work_dirs":
            Path(foreign).parent.mkdir(parents=True)
            Path(foreign).write_text("weights")
            train(plan.jobs[name])
            measure(plan.jobs[f"{name}/test"])
            shutil.copytree("work_dirs", "copy", copy_function=shutil.copyfile)
        assert all(is_finished(plan.jobs[job]) for job in (name, f"{name}/test"))


def test_training_from_another_checkpoint_is_refused(tmp_path):
    plan = chain(tmp_path)
    Path(plan.jobs[PRETRAINING].makes).write_text("pretrained again")
    with pytest.raises(ValueError, match=r"epoch_14\.pth was made from other inputs .*iter_40038"):
        is_finished(plan.jobs[DAP])


def test_input_that_was_removed_to_save_space_is_not_compared(tmp_path):
    plan = chain(tmp_path)
    Path(plan.jobs[PRETRAINING].makes).unlink()
    assert is_finished(plan.jobs[DAP])


def test_training_that_was_begun_from_another_checkpoint_is_not_gone_on_with(tmp_path):
    plan = chain(tmp_path)
    job = plan.jobs[DAP]
    begin_record(job)  # killed in the middle
    Path(job.makes).rename(Path(job.makes).with_name("epoch_3.pth"))
    Path(job.makes).with_name("last_checkpoint").write_text("epoch_3.pth")
    assert not is_finished(job)
    Path(plan.jobs[PRETRAINING].makes).write_text("pretrained again")
    with pytest.raises(ValueError, match="was made from other inputs"):
        is_finished(job)


def test_training_on_other_annotations_is_refused(tmp_path, monkeypatch):
    """Of training; those of validation decide nothing."""
    monkeypatch.chdir(tmp_path)
    lists = Path("data/VOCdevkit/VOC2007/ImageSets/Main")
    lists.mkdir(parents=True)
    for name in ("trainval", "test"):
        (lists / f"{name}.txt").write_text("000001\n")
    plan = chain("work_dirs")
    (lists / "test.txt").write_text("000002\n")
    assert is_finished(plan.jobs[DAP])
    assert not is_finished(plan.jobs[f"{DAP}/test"])  # made again
    (lists / "trainval.txt").write_text("000002\n")
    with pytest.raises(ValueError, match=r"trainval\.txt \(sha256:.* then, sha256:.* now\)"):
        is_finished(plan.jobs[DAP])


def test_test_of_another_checkpoint_is_made_again_and_not_shown(tmp_path):
    plan = chain(tmp_path)
    test, rows = plan.jobs[f"{DAP}/test"], find_experiment("table2").rows[1:2]
    assert "| 79.93 | 50.00 |" in report(find_experiment("table2"), rows, plan, [None])
    job = plan.jobs[DAP]
    train(job, "fine-tuned again")
    os.utime(job.makes, (0, 0))  # however old it looks
    assert not is_finished(test)
    text = report(find_experiment("table2"), rows, plan, [None])
    assert "| 79.93 |  |" in text


def test_older_result_of_a_test_that_was_begun_again_is_not_taken(tmp_path):
    """Killed while it tests the new checkpoint: the figure that is there is of the old one."""
    plan = chain(tmp_path)
    train(plan.jobs[DAP], "fine-tuned again")
    test = plan.jobs[f"{DAP}/test"]
    begin_record(test)
    assert not is_finished(test)
    assert list(find_problems(find_experiment("table2").rows[1:2], plan, [None]))
    measure(test, stamp="20260102_000000")
    assert is_finished(test)


def test_report_shows_no_figure_of_another_chain(tmp_path, capsys):
    """A fine-tuning from a checkpoint that was trained again since, or of another batch."""
    plan = chain(tmp_path)
    rows = find_experiment("table2").rows[1:2]
    Path(plan.jobs[PRETRAINING].makes).write_text("pretrained again")
    assert "| 79.93 |  |" in report(find_experiment("table2"), rows, plan, [None])
    assert "left out of the table: " in capsys.readouterr().out
    by_hand = planned(tmp_path / "by-hand")
    job = by_hand.jobs[DAP]
    small = TREE.load(DAP, {"model.init_cfg.checkpoint": by_hand.jobs[PRETRAINING].makes})
    assert small.train_dataloader.batch_size == 2
    train(replace(job, config=small), recorded=False)
    measure(by_hand.jobs[f"{DAP}/test"], recorded=False)
    assert "| 79.93 |  |" in report(find_experiment("table2"), rows, by_hand, [None])
    assert "total_batch: earlier 2, now 16" in capsys.readouterr().out


def test_result_by_hand_is_finished_and_said_to_be(tmp_path):
    plan = chain(tmp_path, recorded=False)
    assert all(is_finished(job) for job in chosen(plan))
    line = finished_line(plan.jobs[DAP])
    assert line.endswith(
        "(no record of its inputs, as of one made by hand: its settings alone are compared)"
    )
    Path(plan.jobs[PRETRAINING].makes).write_text("pretrained again")  # not known to be another
    assert is_finished(plan.jobs[DAP])
    assert "by hand" not in finished_line(chain(tmp_path / "recorded").jobs[DAP])


def test_result_by_hand_in_place_of_a_recorded_one(tmp_path):
    """The record is of another checkpoint, so nothing is known of this one."""
    plan = chain(tmp_path)
    train(plan.jobs[DAP], "trained by hand", recorded=False)
    assert is_finished(plan.jobs[DAP])
    assert "by hand" in finished_line(plan.jobs[DAP])
    assert not is_finished(plan.jobs[f"{DAP}/test"])


def test_test_by_hand_before_a_later_training_is_made_again(tmp_path):
    """By the names that MMEngine gives by time: those a copy keeps."""
    plan = chain(tmp_path, recorded=False)
    job, test = plan.jobs[DAP], plan.jobs[f"{DAP}/test"]
    for stamp, finished in (("20251231_000000", True), ("20260102_000000", False)):
        log = Path(job.makes).parent / stamp / "vis_data" / "scalars.json"
        log.parent.mkdir(parents=True)
        log.touch()
        shutil.copy(Path(job.makes).parent / f"{DAP}.py", log.with_name("config.py"))
        assert is_finished(test) is finished


def test_test_by_hand_of_another_checkpoint_is_made_again(tmp_path):
    plan = chain(tmp_path, recorded=False)
    test = plan.jobs[f"{DAP}/test"]
    dumped = Path(test.makes).parents[1] / f"{DAP}.py"
    dumped.write_text(dumped.read_text().replace("epoch_14.pth", "epoch_7.pth"))
    assert not is_finished(test)


def test_damaged_record_is_named(tmp_path):
    plan = chain(tmp_path)
    Path(f"{plan.jobs[DAP].makes}.inputs.json").write_text("{}")
    with pytest.raises(ValueError, match=r"epoch_14\.pth\.inputs\.json is not what .*Remove it"):
        is_finished(plan.jobs[DAP])


def test_digest_follows_the_content(tmp_path):
    """SHA-256 of ``abc``, from FIPS 180-2."""
    path = tmp_path / "file"
    path.write_text("abc")
    assert digest(str(path)) == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    path.write_text("abd")
    os.utime(path, (0, 0))
    assert not digest(str(path)).startswith("sha256:ba78")
    assert digest(str(tmp_path)) is None


def job_of_files(tmp_path, text):
    source, made = tmp_path / "source", tmp_path / "made" / "copy"
    source.write_text(text)
    code = "import shutil, sys, os; os.makedirs('made', exist_ok=True); shutil.copy(*sys.argv[1:])"
    jobs = Jobs()
    command = ("python", "-c", code, "source", "made/copy")
    jobs.add("made", "files", command, "made/copy", inputs=("source",))
    return jobs["made"], made


def test_a_job_that_ran_has_a_record(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    job, made = job_of_files(tmp_path, "one")
    run_job(job, tmp_path)
    record = json.loads(Path("made/copy.inputs.json").read_text())
    assert record["inputs"] == {"source": digest("source")}
    assert record["result"]["digest"] == digest("made/copy")
    run_job(job, tmp_path)
    assert "# made is finished: made/copy\n" in capsys.readouterr().out
    (tmp_path / "source").write_text("two")
    with pytest.raises(ValueError, match="made/copy was made from other inputs"):
        run_job(job, tmp_path)
    assert made.read_text() == "one"


def test_a_job_that_failed_leaves_no_result_in_its_record(tmp_path):
    job = Job("x", "files", ("python", "-c", "raise SystemExit(3)"), str(tmp_path / "x"))
    with pytest.raises(RuntimeError, match="code 3"):
        run_job(job, tmp_path)
    (tmp_path / "x").touch()
    assert "by hand" in finished_line(job)


def write_store(folder, settings, images="a" * 64):
    described = {
        "settings": settings.as_json(),
        "classifier": {"weights_sha256": "b" * 64},
        "image_list": {"count": 0, "root": str(folder), "list_sha256": images},
        "shard_size": 64,
        "categories": [],
    }
    writer = StoreWriter(folder, described)
    writer.begin()
    writer.finish()


def test_boxes_are_the_same_whether_generated_or_chosen(tmp_path):
    """Table 2 makes the boxes; Table A1 would choose them from all boxes, which it makes later."""
    alone = planned(tmp_path).jobs["boxes_resnet50_in1k"]
    begin_record(alone)
    write_store(Path(alone.makes).parent, alone.settings)
    end_record(alone, alone.makes)
    jobs = planned(tmp_path, "tableA1", ()).jobs
    all_boxes, job = jobs["boxes_resnet50_in1k_candidates"], jobs["boxes_resnet50_in1k"]
    assert job.inputs == (all_boxes.makes,)
    write_store(Path(all_boxes.makes).parent, all_boxes.settings)
    assert is_finished(alone)
    assert is_finished(job)
    shutil.rmtree(Path(all_boxes.makes).parent)
    write_store(Path(all_boxes.makes).parent, all_boxes.settings, images="c" * 64)
    assert is_finished(alone)
    with pytest.raises(ValueError, match=r"boxes of another image_list than .*candidates"):
        is_finished(job)


def test_boxes_of_another_classifier_are_refused(tmp_path):
    jobs = planned(tmp_path, "step2", ("r50", "in14m")).jobs
    job = jobs["boxes_resnet50_in14m"]
    classifier = Path(jobs["cls_resnet50_64xb128_in14m"].makes)
    classifier.parent.mkdir()
    classifier.write_text("classifier")
    begin_record(job)
    write_store(Path(job.makes).parent, job.settings)
    end_record(job, job.makes)
    assert is_finished(job)
    classifier.write_text("another")
    with pytest.raises(ValueError, match=r"was made from other inputs .*epoch_50\.pth"):
        is_finished(job)


def test_digest_of_boxes_is_of_their_content_wherever_they_lie(tmp_path):
    job = planned(tmp_path).jobs["boxes_resnet50_in1k"]
    for name in "ab":
        write_store(tmp_path / name, job.settings)
    write_store(tmp_path / "c", job.settings, images="c" * 64)
    a, b, c = (digest(str(tmp_path / name / "manifest.json")) for name in "abc")
    assert a == b != c


def predicted(root):
    """The predictions of self-training, as mmdet's ``test.py --tta`` leaves them."""
    jobs = planned(root, "table9", ("dap-in1k", "self-training")).jobs
    job = jobs["predictions_r50-dap-in1k_voc12"]
    train(jobs[DAP])
    begin_record(job)
    out = Path(job.makes).parent
    out.mkdir(exist_ok=True)
    config = job.config.copy()
    config.merge_from_dict({"work_dir": str(out), "load_from": job.inputs[1]})
    config.dump(out / Path(config.filename).name)
    Path(job.makes).write_text("[]")
    end_record(job, job.makes)
    return jobs, job


def test_predictions_of_other_settings_are_made_again(tmp_path):
    _, job = predicted(tmp_path)
    assert job.config.model.type == job.config.tta_model.type
    assert job.config.model.module.type == "FasterRCNN"
    assert is_finished(job)
    dumped = Path(job.makes).parent / "predict_faster-rcnn_r50_fpn_voc12.py"
    text = dumped.read_text()
    dumped.write_text(text.replace("640", "800"))
    assert text != dumped.read_text()
    assert not is_finished(job)


def test_predictions_of_another_checkpoint_are_made_again(tmp_path):
    jobs, job = predicted(tmp_path)
    train(jobs[DAP], "trained again")
    assert not is_finished(job)


def test_figures_of_coco_are_computed_again_for_other_predictions(tmp_path, monkeypatch):
    """By content: the new predictions look older than the figures of the old ones."""
    monkeypatch.setattr(
        "dap.experiments.results.coco_figures",
        lambda annotations, predictions: {"coco/bbox_mAP": float(predictions.read_text())},
    )
    plan = planned(tmp_path, "table1", ("cls-in1k",))
    row = Row("x", find_experiment("table1").rows[0].cells[:1])
    folder = Path(plan.jobs["faster-rcnn_r50-cls-in1k_fpn_90k_coco/test"].makes).parents[1]
    folder.mkdir(parents=True)
    for ap in (0.25, 0.5):
        predictions = folder / "predictions.bbox.json"
        predictions.write_text(str(ap))
        os.utime(predictions, (0, 0))
        assert table([row], plan, [None]).splitlines()[-1] == f"| x | 36.73 | {100 * ap:.2f} |"
