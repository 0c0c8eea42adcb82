"""The verdict on the first images: hopeless runs stop before they have spent hours."""

import pytest
import torch
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import MODELS

from dap.pseudo_boxes import Execution, generate_from_config, generate_pseudo_boxes
from dap.runs.verdict import verdict_on_records
from dap.testing import COLOURS_BGR, draw_image, make_class_folders, write_image
from tests.support.planted import WEIGHT, model_config, planted_classifier
from tests.support.planted_runs import SETTINGS, generate, tree
from tests.support.rank_processes import in_ranks
from tests.support.zoo import save_random_weights, zoo_config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two hundred and ten small images, in class folders one after the other."""
    root = tmp_path_factory.mktemp("many") / "images"
    for colour in COLOURS_BGR:
        image = draw_image((64, 64), [(16, 16, 48, 48)], [colour])
        for number in range(70):
            write_image(root / colour / f"{number}.png", image)
    return root


def classifier(order):
    """The planted classifier with its classes in another order."""
    model = MODELS.build(model_config())
    model.load_state_dict({"head.fc.weight": WEIGHT[order], "head.fc.bias": torch.zeros(3)})
    return model


def verdicts(capsys):
    """The verdicts in the log."""
    lines = capsys.readouterr().out.splitlines()
    return [line[line.index("verdict") :] for line in lines if "INFO - verdict" in line]


def test_good_run_is_judged_early_and_goes_on(root, tmp_path, capsys):
    generate(root, tmp_path / "out")
    early, last = verdicts(capsys)
    assert early.startswith("verdict on 200 images spread over the data set: ")
    assert early.endswith("the classifier's first guess is right on 100.0%")
    assert last.startswith("verdict: ")


def test_shuffled_classes_stop_the_run_before_a_shard_is_written(root, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError) as stopped:
        generate(root, out, model=classifier([1, 2, 0]))
    message = str(stopped.value)
    for words in (
        "stopped after 200 images",
        "right on 0.0% of 200",
        "33.3%",
        "mean, std, to_rgb",
        "--classes",
        "--keep-going",
    ):
        assert words in message
    assert list((out / "shards").iterdir()) == []


def test_keep_going_goes_on(root, tmp_path):
    execution = Execution(0, keep_going=True)
    summary, _ = generate(root, tmp_path / "out", model=classifier([1, 2, 0]), execution=execution)
    assert summary["images"] == 210
    assert summary["top1"] == 0.0


def test_one_class_that_is_right_by_chance_does_not_save_a_run(root, tmp_path):
    """Blue comes first and is right; the first 70 images alone would look perfect."""
    with pytest.raises(RuntimeError, match=r"right on 33\.\d% of 200 images"):
        generate(root, tmp_path / "out", model=classifier([0, 2, 1]))


def test_small_sets_are_judged_at_the_end_alone(tmp_path, capsys):
    root = make_class_folders(tmp_path / "images", 4)
    generate(root, tmp_path / "out", model=classifier([1, 2, 0]))
    (only,) = verdicts(capsys)
    assert only.startswith("verdict: ")
    assert only.endswith("right on 0.0%")


def test_early_images_change_no_byte(root, tmp_path, monkeypatch):
    from dap.runs import early_verdict

    generate(root, tmp_path / "judged")
    monkeypatch.setattr(early_verdict, "EARLY", 1000)
    generate(root, tmp_path / "not_judged")
    assert tree(tmp_path / "judged") == tree(tmp_path / "not_judged")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_each_image_is_computed_once_where_batches_are_of_one(root, tmp_path, batch_size):
    """Otherwise the early images are computed again: their bits may depend on the batch."""
    model, seen = planted_classifier(), []
    model.data_preprocessor.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]["inputs"]))
    )
    execution = Execution(0, batch_size=batch_size)
    generate(root, tmp_path / "out", model=model, execution=execution)
    probes = 4  # of one image each
    assert sum(seen) - probes == (210 if batch_size == 1 else 410)


def test_all_processes_stop(root, tmp_path):
    def run(rank):
        dataset = CustomDataset(data_root=str(root))
        model = classifier([1, 2, 0])
        generate_pseudo_boxes(model, dataset, tmp_path / "out", SETTINGS, None, Execution(0))

    for message in in_ranks(run, 2, tmp_path):
        assert "RuntimeError: stopped after 200 images" in message


def test_untrained_zoo_classifier_is_stopped(root, tmp_path):
    config = zoo_config(root)
    checkpoint = save_random_weights(config, tmp_path / "weights.pth")
    with pytest.raises(RuntimeError, match="not trained"):
        generate_from_config(config, str(checkpoint), tmp_path / "out", execution=Execution(0))


def record(label, right, box=(10.0, 10.0, 60.0, 60.0)):
    return {"file_name": "x.jpg", "height": 100, "width": 100, "top1": right,
            "boxes": [[*box, label, 0]]}  # fmt: skip


@pytest.mark.parametrize(("classes", "right", "hopeless"), [
    (1000, 14, True), (1000, 16, False),  # chance .001 + .15 x .999
    (2, 57, True), (2, 58, False),  # .5 + .15 x .5 = .575
    (1, 100, False),
])  # fmt: skip
def test_limit_lies_between_chance_and_certainty(classes, right, hopeless):
    records = [record(0, i < right) for i in range(100)]
    assert (verdict_on_records(records, (0.3,), classes).hopeless is not None) == hopeless


def test_images_without_a_class_do_not_count(tmp_path):
    nothing = {"file_name": "x.jpg", "height": 9, "width": 9, "boxes": [], "top1": False,
               "reason": "it has no class"}  # fmt: skip
    records = [record(0, True)] * 10 + [nothing] * 90
    assert verdict_on_records(records, (0.3,), 5).hopeless is None


@pytest.mark.parametrize(("whole", "rule", "warned"), [
    (2, "paper", True), (2, "extent", False), (3, "extent", False), (4, "extent", True),
])  # fmt: skip
def test_boxes_on_nearly_all_of_the_image_are_usual_by_extents_only(whole, rule, warned):
    """Ten images, of which some have a box on all of it: limits are 10 and 30 %."""
    records = [record(0, True, (0.0, 0.0, 100.0, 100.0))] * whole + [record(0, True)] * (10 - whole)
    judged = verdict_on_records(records, (0.3,), 5, rule)
    assert any("more than 95% of the image" in warning for warning in judged.warnings) == warned


class TestNormalization:
    """A classifier that would see pixels of 0 to 255 is refused."""

    def run(self, config, root, tmp_path, **options):
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        torch.save(model.state_dict(), tmp_path / "weights.pth")
        out = tmp_path / "out"
        execution = Execution(0, keep_going=True)
        return generate_from_config(
            config, str(tmp_path / "weights.pth"), out, execution=execution, **options
        )

    @pytest.mark.parametrize("change", [
        {"data_preprocessor": None},
        {"data_preprocessor": {"to_rgb": True}},
        {"data_preprocessor": {"mean": [0.0] * 3, "std": [1.0] * 3, "to_rgb": True}},
    ])  # fmt: skip
    def test_refused_with_the_cure(self, tmp_path, change):
        root = make_class_folders(tmp_path / "images", 1)
        config = Config({**zoo_config(root).to_dict(), **change})
        with pytest.raises(ValueError, match=r"not normalised.*mean=.*--no-normalization"):
            self.run(config, root, tmp_path)
        assert self.run(config, root, tmp_path, normalized=False)["images"] == 3

    def test_scaling_to_one_is_a_normalization(self, tmp_path):
        """As mmpretrain's MobileViT has it: mean 0, std 255, BGR."""
        root = make_class_folders(tmp_path / "images", 1)
        preprocessor = {"mean": [0.0] * 3, "std": [255.0] * 3, "to_rgb": False}
        config = Config({**zoo_config(root).to_dict(), "data_preprocessor": preprocessor})
        assert self.run(config, root, tmp_path)["images"] == 3

    def test_preprocessor_at_the_top_level_and_in_the_model_give_the_same_bytes(self, tmp_path):
        root = make_class_folders(tmp_path / "images", 2)
        config = zoo_config(root)
        assert "data_preprocessor" not in config.model
        self.run(config, root, tmp_path)
        top = tree(tmp_path / "out")
        (tmp_path / "out").rename(tmp_path / "top")
        config.model.data_preprocessor = config.pop("data_preprocessor")
        self.run(config, root, tmp_path)
        assert tree(tmp_path / "out") == top
