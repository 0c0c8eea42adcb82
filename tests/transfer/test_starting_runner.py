"""What dap.PretrainedDetector learns from the Runner that initialises a detector: real runs."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.runner import CheckpointLoader, Runner

from dap.testing import make_coco
from dap.transfer import category_dependent_parameters
from tests.support.tiny_detectors import (
    assert_moved,
    build,
    mark,
    one_iteration,
    run_one_iteration,
    save_marked,
    save_mmengine,
    tiny_model,
    with_init_cfg,
)

CLASSES = ("blue", "green", "red")
DEPENDENT = category_dependent_parameters(tiny_model("faster-rcnn", 3))


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco") / "coco", images=3, classes=CLASSES)


@pytest.fixture
def raw(tmp_path):
    """Weights without any config, of as many classes as the detector to train."""
    return save_marked(tmp_path / "raw.pth", num_classes=3, kind="raw")[0]


def trained(path):
    return torch.load(path, weights_only=True)["state_dict"]


def logged(work_dir):
    return "\n".join(file.read_text() for file in work_dir.rglob("*.log"))


def test_config_of_the_runner_tells_what_depends_on_the_categories(tmp_path, annotations, raw):
    model_cfg = with_init_cfg(tiny_model("faster-rcnn", 3), checkpoint=raw)

    out = run_one_iteration(tmp_path / "run", annotations, model_cfg, CLASSES)

    assert_moved(trained(out), torch.load(raw, weights_only=True), DEPENDENT)


def test_new_style_config_with_classes(tmp_path, annotations, raw):
    """The Runner's text has their names, the detector has the classes."""
    model_cfg = with_init_cfg(tiny_model("faster-rcnn", 3), checkpoint=raw)
    config = one_iteration(tmp_path / "run", annotations, model_cfg, CLASSES)
    text = config.pretty_text.replace("'dap.PretrainedDetector'", "PretrainedDetector")
    file = tmp_path / "config.py"
    file.write_text(f"from dap.transfer import PretrainedDetector\n{text}")

    Runner.from_cfg(Config.fromfile(file)).train()

    assert_moved(
        trained(tmp_path / "run/iter_1.pth"), torch.load(raw, weights_only=True), DEPENDENT
    )


def test_runner_of_before_tells_nothing(tmp_path, annotations, raw):
    """A detector built by hand after a training, from the same config."""
    model_cfg = with_init_cfg(tiny_model("faster-rcnn", 3), checkpoint=raw)
    run_one_iteration(tmp_path / "run", annotations, model_cfg, CLASSES)

    with pytest.raises(ValueError, match="no Runner tells the detector's own"):
        build(model_cfg).init_weights()


def test_runner_of_another_detector_tells_nothing(tmp_path, raw):
    other = with_init_cfg(tiny_model("faster-rcnn", 3), checkpoint="other.pth")
    hub = MessageHub.get_instance("of another detector")
    hub.update_info("cfg", Config({"model": other, "default_scope": "mmdet"}).pretty_text)

    with pytest.raises(ValueError, match="no Runner tells the detector's own"):
        build(with_init_cfg(tiny_model("faster-rcnn", 3), checkpoint=raw)).init_weights()


def test_resumed_training_does_not_read_the_pre_trained_detector(
    tmp_path, annotations, raw, monkeypatch
):
    """The file is gone, and so is the backbone's, which the first run did not read either."""
    model_cfg = tiny_model("faster-rcnn", 3)
    model_cfg.backbone.init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "gone.pth")}
    model_cfg = with_init_cfg(model_cfg, checkpoint=raw)
    first = trained(run_one_iteration(tmp_path / "run", annotations, model_cfg, CLASSES))
    raw.unlink()
    longer = {"type": "IterBasedTrainLoop", "max_iters": 2, "val_interval": 10}
    files = []
    load = CheckpointLoader.load_checkpoint

    def noting(file, *args, **kwargs):
        files.append(file)
        return load(file, *args, **kwargs)

    monkeypatch.setattr(CheckpointLoader, "load_checkpoint", noting)

    changes = {"resume": True, "train_cfg": longer, "experiment_name": "resumed"}
    run_one_iteration(tmp_path / "run", annotations, model_cfg, CLASSES, **changes)

    second = trained(tmp_path / "run/iter_2.pth")
    counters = ("num_batches_tracked", "running_mean", "running_var")
    for name, value in first.items():
        if not name.endswith(counters):
            assert torch.equal(value, second[name]), name
    assert files == [str(tmp_path / "run/iter_1.pth")]
    assert f"{raw} is not read" in logged(tmp_path / "run")


def test_resume_from_a_named_checkpoint(tmp_path, annotations, raw):
    """As mmdet's --resume FILE: load_from and resume."""
    model_cfg = with_init_cfg(tiny_model("faster-rcnn", 3), checkpoint=raw)
    first = run_one_iteration(tmp_path / "first", annotations, model_cfg, CLASSES)
    raw.unlink()
    changes = {"resume": True, "load_from": str(first)}
    changes["train_cfg"] = {"type": "IterBasedTrainLoop", "max_iters": 2, "val_interval": 10}

    run_one_iteration(tmp_path / "second", annotations, model_cfg, CLASSES, **changes)

    before, after = trained(first), trained(tmp_path / "second/iter_2.pth")
    assert torch.equal(before["rpn_head.rpn_conv.weight"], after["rpn_head.rpn_conv.weight"])


def test_resume_with_nothing_to_resume_reads_it(tmp_path, annotations, raw):
    """As a job that a queue starts again and again with --resume."""
    model_cfg = with_init_cfg(tiny_model("faster-rcnn", 3), checkpoint=raw)

    out = run_one_iteration(tmp_path / "run", annotations, model_cfg, CLASSES, resume=True)

    assert_moved(trained(out), torch.load(raw, weights_only=True), DEPENDENT)


def test_load_from_beside_init_cfg_is_warned_of(tmp_path, annotations, raw):
    weights = tiny_model("faster-rcnn", 3)
    path = save_mmengine(tmp_path / "other.pth", mark(build(copy.deepcopy(weights))), weights)
    model_cfg = with_init_cfg(tiny_model("faster-rcnn", 3), checkpoint=path)

    run_one_iteration(tmp_path / "a", annotations, model_cfg, CLASSES, load_from=str(raw))
    run_one_iteration(tmp_path / "b", annotations, model_cfg, CLASSES)

    assert f"load_from='{raw}' is loaded after init_cfg and replaces" in logged(tmp_path / "a")
    assert "is loaded after init_cfg" not in logged(tmp_path / "b")


def test_detector_inside_of_a_semi_supervised_one(tmp_path, annotations, raw):
    """Its init_cfg lies deeper in the Runner's config."""
    inner = with_init_cfg(tiny_model("faster-rcnn", 3), checkpoint=raw)
    preprocessor = {"type": "MultiBranchDataPreprocessor"}
    preprocessor["data_preprocessor"] = inner.data_preprocessor
    model_cfg = {
        "type": "SoftTeacher",
        "detector": inner,
        "data_preprocessor": preprocessor,
        "semi_train_cfg": {"freeze_teacher": True},
        "semi_test_cfg": {"predict_on": "teacher"},
    }
    runner = Runner.from_cfg(one_iteration(tmp_path / "run", annotations, model_cfg, CLASSES))
    runner.call_hook("before_run")

    runner.model.init_weights()

    assert_moved(runner.model.student.state_dict(), torch.load(raw, weights_only=True), DEPENDENT)
    assert_moved(runner.model.teacher.state_dict(), torch.load(raw, weights_only=True), DEPENDENT)
