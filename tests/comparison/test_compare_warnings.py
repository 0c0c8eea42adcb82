"""What tools/compare.py warns of: runs that differ in more than initialisation."""

import pytest

from dap.comparison import compare
from dap.comparison.config_difference import (
    differences,
    initialisation,
    is_initialisation,
    result_values,
    shortened,
    shots_of,
)
from dap.experiments import ConfigTree
from dap.experiments.schedule import k_shot_options
from tests.support.work_dirs import CLS, DAP, changed, warnings, write_run

pytestmark = pytest.mark.usefixtures("no_drawing")
TREE = ConfigTree()


class TestWarnings:
    def pair(self, tmp_path, config, iterations=(25, 50)):
        runs = []
        for seed in (0, 1):
            runs += [write_run(tmp_path / f"cls_seed{seed}", {25: 10, 50: 20}, CLS, seed)]
            ap50 = dict.fromkeys(iterations, 20)
            runs += [write_run(tmp_path / f"dap_seed{seed}", ap50, config, seed)]
        return compare(runs, tmp_path / "out")

    def test_differences_without_influence_are_not_reported(self, tmp_path):
        same = changed(
            DAP,
            load_from="x.pth",
            train_dataloader__num_workers=8,
            val_evaluator__outfile_prefix="x",
            default_hooks__logger__interval=10,
            visualizer={"type": "x"},
            launcher="pytorch",
        )
        report = self.pair(tmp_path, same)
        assert warnings(report) == []
        assert "## Config" not in report

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("optim_wrapper__optimizer__lr", 0.01, "optim_wrapper.optimizer.lr 0.02 → 0.01"),
            ("model__backbone__frozen_stages", 2, "model.backbone.frozen_stages 1 → 2"),
            ("train_dataloader__batch_size", 4, "train_dataloader.batch_size 2 → 4"),
            ("custom_hooks", [{"type": "EMAHook"}], "custom_hooks.0.type – → 'EMAHook'"),
        ],
    )
    def test_more_than_initialisation(self, tmp_path, key, value, said):
        report = self.pair(tmp_path, changed(DAP, **{key: value}))
        (warning,) = warnings(report)
        assert warning == f"- dap and cls differ in more than initialisation: {said}"
        dotted, before, _, after = said.split(" ")
        assert f"| `{dotted}` | {before} | {after} |" in report

    def test_another_evaluation_file(self, tmp_path):
        report = self.pair(tmp_path, changed(DAP, val_evaluator__ann_file="other.json"))
        assert "- dap and cls are evaluated on different files, so their" in "\n".join(
            warnings(report)
        )
        report = self.pair(tmp_path / "2", changed(DAP, test_evaluator__ann_file="other.json"))
        assert warnings(report) == []

    def test_total_batch_in_place_of_that_of_a_gpu(self):
        one, eight = (
            result_values(changed(CLS, total_batch=16, train_dataloader__batch_size=size))
            for size in (16, 2)
        )
        assert differences(one, eight) == []
        (found,) = differences(one, eight | {"total_batch": 32})
        assert (found.key, found.reference, found.other) == ("total_batch", 16, 32)
        (found,) = differences(result_values(CLS) | {"train_dataloader.batch_size": 4}, eight)
        assert found.key == "train_dataloader.batch_size"

    @pytest.mark.parametrize(
        ("name", "shots"), [("14e_voc07", None), ("voc-kshot", 5), ("coco-kshot", 100)]
    )
    def test_our_twins_differ_in_initialisation_alone(self, name, shots):
        configs = [
            TREE.load(f"faster-rcnn_r50-{start}-in1k_fpn_{name}") for start in ("cls", "dap")
        ]
        if shots:
            for config in configs:
                config.merge_from_dict(k_shot_options(config, f"{shots}shot"))
        cls, dap = (config.to_dict() for config in configs)
        found = differences(result_values(cls), result_values(dap))
        assert found
        assert all(is_initialisation(difference.key) for difference in found)
        assert initialisation(cls) == ["torchvision://resnet50"]
        assert initialisation(dap) == [
            "work_dirs/faster-rcnn_r50_fpn_40k_in1k-boxes/iter_40038.pth"
        ]
        assert (shots_of(cls), shots_of(dap)) == (shots, shots)

    def test_unfinished_run(self, tmp_path):
        config = changed(DAP, train_cfg__max_iters=50)
        report = self.pair(tmp_path, config, (25,))
        said = "\n".join(warnings(report))
        assert said.count("is unfinished: iteration 25 of 50") == 2
        assert "trained for different numbers of iterations by their logs: 25 and 50" in said

    def test_runs_of_a_named_group_that_differ(self, four_runs, tmp_path):
        report = compare([f"all={','.join(four_runs)}"], tmp_path / "out")
        said = "\n".join(warnings(report))
        assert "dap_seed0 differs from the first run in more than its seed: model.b" in said
        assert "several runs have the seed 0, 1" in said

    def test_different_seeds(self, four_runs, tmp_path):
        third = write_run(tmp_path / "dap_seed2", {25: 34, 50: 49, 100: 53}, DAP, 2)
        (warning,) = warnings(compare([*four_runs, third], tmp_path / "out"))
        assert "different seeds, 0, 1, 2 and 0, 1: compare runs" in warning

    def test_hash_in_an_address_tells_other_weights(self):
        """The hash in the name of a local file, by extract_detector, may be due to the seed."""

        def values(checkpoint):
            return result_values({"model": {"init_cfg": {"checkpoint": checkpoint}}})

        assert values("w/iter_9-0676ba61.pth") == values("w/iter_9-11ad3fa6.pth")
        assert values("https://x/r50-0676ba61.pth") != values("https://x/r50-11ad3fa6.pth")

    def test_pictures_are_housekeeping(self):
        one, other = ({"default_hooks": {"visualization": {"num_images": i}}} for i in (1, 2))
        assert result_values(one) == result_values(other) == {}

    def test_long_values_are_cut(self):
        assert shortened("a" * 200) == "'" + "a" * 27 + " … " + "a" * 27 + "'"
        assert shortened(None) == "–"
        assert shortened([1, 2]) == "[1, 2]"
