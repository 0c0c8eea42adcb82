"""Files for publication: what is in them, that they are reproducible, and who loads them."""

import copy
import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import load_checkpoint
from safetensors.torch import load_file

from dap.transfer import PretrainedDetector, category_dependent_parameters, extract_detector
from tests.support.tiny_detectors import build, mark, save_mmengine, tiny_model, with_init_cfg

TOOL = Path(__file__).parents[2] / "tools/extract_detector.py"
DEPENDENT = category_dependent_parameters(tiny_model("faster-rcnn", 4))


@pytest.fixture
def weights():
    return mark(build(tiny_model("faster-rcnn", 4))).state_dict()


@pytest.fixture
def checkpoint(tmp_path):
    """Give a checkpoint as a Runner writes it, with the same weights as the fixture above."""
    model_cfg = tiny_model("faster-rcnn", 4)
    detector = mark(build(copy.deepcopy(model_cfg)))
    return save_mmengine(tmp_path / "epoch_1.pth", detector, model_cfg)


def equal(found, expected):
    return list(found) == list(expected) and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


def test_plain_weights_without_category_dependent_layers(tmp_path, checkpoint, weights):
    path = extract_detector(checkpoint, tmp_path / "out")

    content = torch.load(path, weights_only=True)

    assert equal(content, {n: v for n, v in weights.items() if n not in DEPENDENT})
    assert DEPENDENT <= weights.keys()
    assert all(value.device.type == "cpu" for value in content.values())
    assert path.stat().st_size < checkpoint.stat().st_size


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("out", "out/epoch_1-{}.pth"),
        ("out/v1.0", "out/v1.0/epoch_1-{}.pth"),
        ("out/dap.pth", "out/dap-{}.pth"),
        ("dap-r50.safetensors", "dap-r50-{}.safetensors"),
    ],
)
def test_name_has_the_hash_of_the_bytes(tmp_path, checkpoint, out, expected):
    path = extract_detector(checkpoint, tmp_path / out)

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path == tmp_path / expected.format(digest[:8])
    assert [p for p in path.parent.iterdir() if p.is_file() and p != checkpoint] == [path]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_same_bytes_each_time(tmp_path, checkpoint, suffix):
    """Also from a copy under another name, and from what was extracted before."""
    first = extract_detector(checkpoint, tmp_path / f"a/dap{suffix}")
    renamed = checkpoint.rename(tmp_path / "other.pth")
    second = extract_detector(renamed, tmp_path / f"b/dap{suffix}")
    third = extract_detector(first, tmp_path / f"c/dap{suffix}")

    assert first.name == second.name == third.name
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


def test_other_weights_other_hash(tmp_path, checkpoint):
    first = extract_detector(checkpoint, tmp_path / "out")
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["neck.fpn_convs.0.conv.bias"] += 1
    torch.save(content, checkpoint)

    assert extract_detector(checkpoint, tmp_path / "out").name != first.name


def test_views_are_saved_alone(tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    name = "neck.fpn_convs.0.conv.bias"
    size = extract_detector(checkpoint, tmp_path / "out").stat().st_size
    content["state_dict"][name] = torch.zeros(10**6)[:8]
    torch.save(content, checkpoint)

    assert extract_detector(checkpoint, tmp_path / "out").stat().st_size == size


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("num_classes", [4, 6])
def test_pretrained_detector_takes_it_without_any_config(
    tmp_path, checkpoint, weights, log, suffix, num_classes
):
    path = extract_detector(checkpoint, tmp_path / f"dap{suffix}")
    detector = build(tiny_model("faster-rcnn", num_classes))

    report = PretrainedDetector(path)(detector)

    assert set(report.category_dependent) == DEPENDENT
    assert report.missing == report.unexpected == ()
    assert "missing:" not in log()
    state = detector.state_dict()
    assert all(torch.equal(state[n], weights[n]) for n in report.loaded)
    assert len(report.loaded) == len(weights) - len(DEPENDENT)


def test_init_weights_takes_it(tmp_path, checkpoint, weights):
    path = extract_detector(checkpoint, tmp_path)
    model_cfg = with_init_cfg(tiny_model("faster-rcnn", 6), checkpoint=path)
    detector = build(model_cfg)

    detector.init_weights()

    state = detector.state_dict()
    assert all(torch.equal(state[n], v) for n, v in weights.items() if n not in DEPENDENT)


def test_load_from_takes_it(tmp_path, checkpoint, weights):
    path = extract_detector(checkpoint, tmp_path)
    detector = build(tiny_model("faster-rcnn", 4))

    load_checkpoint(detector, str(path), map_location="cpu")

    state = detector.state_dict()
    assert all(torch.equal(state[n], v) for n, v in weights.items() if n not in DEPENDENT)


def test_safetensors_opens_in_other_tools(tmp_path, checkpoint, weights):
    path = extract_detector(checkpoint, tmp_path / "dap.safetensors")

    assert load_file(path).keys() == weights.keys() - DEPENDENT


def test_config_for_weights_that_have_none(tmp_path, checkpoint, weights):
    torch.save(weights, tmp_path / "raw.pth")

    with pytest.raises(ValueError, match=r"raw\.pth has no readable config.*--config"):
        extract_detector(tmp_path / "raw.pth", tmp_path / "out")
    raw = extract_detector(tmp_path / "raw.pth", tmp_path / "a", tiny_model("faster-rcnn", 9))

    content = torch.load(raw, weights_only=True)
    assert content.keys() == weights.keys() - DEPENDENT


def test_config_of_another_detector(tmp_path, checkpoint):
    with pytest.raises(ValueError, match=r"epoch_1\.pth is of another detector.*retina_cls"):
        extract_detector(checkpoint, tmp_path / "out", tiny_model("retinanet", 4))
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path, checkpoint, weights):
    weights["backbone.bn1.running_var"][0] = float("nan")
    torch.save({"state_dict": weights}, checkpoint)

    with pytest.raises(ValueError, match=r"epoch_1\.pth: backbone\.bn1\.running_var holds"):
        extract_detector(checkpoint, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_name_of_an_unknown_kind(tmp_path, checkpoint):
    with pytest.raises(ValueError, match=r"OUT is .*dap\.pt, expected a folder or a name"):
        extract_detector(checkpoint, tmp_path / "dap.pt")


def test_failed_write_leaves_nothing(tmp_path, checkpoint, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match=r"epoch_1-\w+\.pth cannot be written \(No space left"):
        extract_detector(checkpoint, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_command_line(tmp_path, checkpoint, weights):
    """Another process writes the same bytes as this one."""
    here = extract_detector(checkpoint, tmp_path / "here")

    command = [sys.executable, "-W", "ignore", str(TOOL), str(checkpoint), str(tmp_path / "there")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    path = Path(result.stdout.splitlines()[-1])
    assert path.parent == tmp_path / "there"
    assert path.name == here.name
    assert path.read_bytes() == here.read_bytes()


def test_command_line_says_what_is_wrong(tmp_path, run_here):
    result = run_here("extract_detector", tmp_path / "no.pth", tmp_path / "out")

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: no checkpoint at {tmp_path}/no.pth")
    assert not (tmp_path / "out").exists()
