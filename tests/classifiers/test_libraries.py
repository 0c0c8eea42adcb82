"""Classifiers of timm, torchvision and transformers in place of a config."""

import json
import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from networks import randomized
from torchvision import models

from dap.classifiers import libraries
from dap.classifiers.libraries import CLASS_NAMES, classifier_config
from dap.classifiers.weights import load_classifier_weights
from dap.pseudo_boxes import CamClassifier, PseudoBoxStore, build_classifier
from dap.testing import write_image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="of the dependency group lite0")


def saved(network, path):
    torch.save(randomized(network).state_dict(), path)
    return network


def logits_of(model, images):
    with torch.no_grad():
        return model.eval()(images)


IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_network_of_timm_with_own_classes(timm, tmp_path, prefix):
    network = saved(timm.create_model("test_efficientnet", num_classes=7), tmp_path / "x.pth")
    weights = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "x.pth")
    config = classifier_config("timm:test_efficientnet", str(tmp_path / "x.pth"))
    assert config.filename == "timm:test_efficientnet"
    assert config.model.num_classes == 7
    assert CLASS_NAMES not in config
    model, _ = build_classifier(config, str(tmp_path / "x.pth"))
    torch.testing.assert_close(logits_of(model, IMAGES), logits_of(network, IMAGES))
    pixels = torch.full((1, 3, 2, 2), 51.0) * torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)
    rgb = CamClassifier(model).normalize(pixels)[0, :, 0, 0]  # of blue 0.2, green 0.4, red 0.6
    mean, std = (torch.tensor(network.pretrained_cfg[key]) for key in ("mean", "std"))
    torch.testing.assert_close(rgb, (torch.tensor([0.6, 0.4, 0.2]) - mean) / std)


def test_classes_of_imagenet_are_named(timm):
    assert classifier_config("timm:resnet18", None)[CLASS_NAMES] == list(IMAGENET_CATEGORIES)
    larger = libraries._timm_classes(21841)
    assert len(larger) == 21841
    assert all(name.startswith("n") for name in larger)


def test_transformer_of_timm_takes_images_of_any_size(timm, tmp_path):
    saved(timm.create_model("test_vit"), tmp_path / "x.pth")
    config = classifier_config("timm:test_vit", str(tmp_path / "x.pth"))
    found = CamClassifier(build_classifier(config, str(tmp_path / "x.pth"))[0])
    assert (found.map_method, found.input_size) == ("gradient", None)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1"])
def test_network_of_torchvision(tmp_path, name):
    network = saved(models.get_model(name, num_classes=4), tmp_path / "x.pth")
    config = classifier_config(f"torchvision:{name}", str(tmp_path / "x.pth"))
    assert config.model.num_classes == 4
    assert config.data_preprocessor["mean"] == pytest.approx([123.675, 116.28, 103.53])
    model, _ = build_classifier(config, str(tmp_path / "x.pth"))
    torch.testing.assert_close(logits_of(model, IMAGES), logits_of(network, IMAGES))
    assert CamClassifier(model).map_method == "exact"


def test_names_that_do_not_exist_are_refused(timm, tmp_path):
    with pytest.raises(ValueError, match=r"timm:convnext_tyni: there is no such .* convnext_tiny"):
        classifier_config("timm:convnext_tyni", None)
    with pytest.raises(ValueError, match=r"torchvision:resnet5: .* similar ones are resnet"):
        classifier_config("torchvision:resnet5", None)
    with pytest.raises(ValueError, match=r"dinov2: it is a backbone without classes"):
        classifier_config("timm:vit_small_patch14_dinov2", None)
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        classifier_config("timm:resnet18", str(tmp_path / "missing.pth"))
    with pytest.raises(FileNotFoundError, match=r"missing\.py"):
        classifier_config(str(tmp_path / "missing.py"), None)


def test_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"timm:resnet18: .* pip install timm"):
        classifier_config("timm:resnet18", None)
    with pytest.raises(ValueError, match=r"huggingface:x: .* pip install transformers"):
        classifier_config("huggingface:x", None)


def test_folder_of_hugging_face(monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "find_spec", lambda name: object())
    with pytest.raises(FileNotFoundError, match=r"no .*config\.json. Nothing is downloaded"):
        classifier_config(f"huggingface:{tmp_path}", None)
    labels = {"1": "cat", "0": "ant", "10": "owl"}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3}))
    with pytest.raises(ValueError, match="no image_std in it"):
        classifier_config(f"huggingface:{tmp_path}", None)
    images = {"image_mean": [0.5] * 3, "image_std": [0.2] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    config = classifier_config(f"huggingface:{tmp_path}", None)
    assert config.model == {"type": "HuggingFaceClassifier", "model_name": str(tmp_path)}
    assert config[CLASS_NAMES] == ["ant", "cat", "owl"]
    assert config.data_preprocessor["std"] == [51.0] * 3


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize("kind", ["ViT", "ResNet"])
def test_classifier_of_hugging_face(tmp_path, kind):
    import transformers

    small = {
        "ViT": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
                "intermediate_size": 32, "image_size": 64},
        "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]},
    }[kind]  # fmt: skip
    described = getattr(transformers, f"{kind}Config")(**small, num_labels=3)
    network = getattr(transformers, f"{kind}ForImageClassification")(described)
    randomized(network).save_pretrained(tmp_path)
    images = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    checkpoint = str(tmp_path / "model.safetensors")
    config = classifier_config(f"huggingface:{tmp_path}", checkpoint)
    model, _ = build_classifier(config, checkpoint)
    found = CamClassifier(model)
    assert found.input_size is None
    assert found.map_method == ("gradient" if kind == "ViT" else "exact")


@pytest.fixture
def run_tool(monkeypatch):
    """Run a tool in this process."""
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")

    return run


def test_from_command_line_to_maps(timm, tmp_path, run_tool, capsys):
    """Class folders and a checkpoint of timm: boxes, the same again, and their page with maps."""
    network = timm.create_model("test_vit", num_classes=2)
    saved(network, tmp_path / "x.pth")
    rng = np.random.default_rng(0)
    for name in ("ant", "owl"):
        image = rng.integers(0, 256, (80, 120, 3)).astype(np.uint8)
        write_image(tmp_path / "images" / name / "1.jpg", image)
    out = tmp_path / "out"
    command = ("generate_pseudo_boxes.py", "timm:test_vit", tmp_path / "x.pth", "--out", out,
               "--images", tmp_path / "images", "--device", "cpu", "--workers", 0,
               "--cfg-options", "pseudo_boxes.short_sides=(64,)")  # fmt: skip
    run_tool(*command)
    said = "".join(capsys.readouterr())
    assert "class activation maps are AG-CAM over the attention of 6 blocks" in said
    store = PseudoBoxStore(out)
    assert store.manifest["classifier"]["map_method"] == "gradient"
    summary = (out / "summary.json").read_bytes()
    run_tool(*command)
    assert (out / "summary.json").read_bytes() == summary
    run_tool("inspect_boxes.py", out, "--maps", "timm:test_vit", tmp_path / "x.pth",
             "--device", "cpu", "--count", 2)  # fmt: skip
    assert (out / "inspection" / "index.html").is_file()
    with pytest.raises(SystemExit, match="no exact class activation map, because"):
        run_tool(*command[:-2], "--map-method", "exact")


def test_missing_config_is_told_with_what_else_would_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config at .*nope\.py; .*timm:NAME, torchv"):
        classifier_config(str(tmp_path / "nope.py"), None)


class Renaming(torch.nn.Linear):
    """A network whose library reads its older names, as transformers does."""

    config = (3, 2)

    @classmethod
    def from_pretrained(cls, folder, *, config, state_dict, output_loading_info):
        assert folder is None
        assert output_loading_info
        network = cls(*config)
        known = {n.removeprefix("old_"): v for n, v in state_dict.items() if n.startswith("old_")}
        report = network.load_state_dict(known, strict=False)
        return network, {"missing_keys": report.missing_keys, "mismatched_keys": []}


def test_weights_under_older_names_are_read_by_the_library(tmp_path):
    expected = torch.nn.Linear(3, 2)
    weights = {f"old_{name}": value for name, value in expected.state_dict().items()}
    torch.save(weights, tmp_path / "old.pth")
    network = Renaming(3, 2)
    load_classifier_weights(network, str(tmp_path / "old.pth"), "huggingface:x")
    torch.testing.assert_close(network.weight, expected.weight)
    torch.testing.assert_close(network.bias, expected.bias)
    del weights["old_bias"]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(ValueError, match="2 of 2 weights are missing"):
        load_classifier_weights(network, str(tmp_path / "part.pth"), "huggingface:x")
