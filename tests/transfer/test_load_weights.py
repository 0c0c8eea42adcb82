"""Weights out of every kind of checkpoint, and a clear word about everything else."""

import os
import pickle
from collections import OrderedDict

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from safetensors.torch import save_file
from tiny_detectors import save_mmengine, tiny_model
from torch import nn

from dap.checkpoint import load_weights

W, B = torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])
WEIGHTS = {"neck.fc.weight": W, "neck.fc.bias": B}


def prefixed(prefix):
    return {prefix + name: value for name, value in WEIGHTS.items()}


def check(found, expected=WEIGHTS):
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "meta": {}, "optimizer": {"state": {0: {"m": torch.zeros(9)}}}},
        {"model": WEIGHTS, "epoch": 3},
        {"model": {"state_dict": WEIGHTS}},
        {"state_dict_ema": WEIGHTS, "epoch": 3},
        {"state_dict": WEIGHTS, "state_dict_ema": {"neck.fc.weight": W + 1}},
        {"ema": {"module": WEIGHTS, "updates": 4}},
        prefixed("module."),
        {"state_dict": prefixed("module.")},
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        {"neck._orig_mod.fc.weight": W, "neck._orig_mod.fc.bias": B},
        {**prefixed("module."), "n_averaged": torch.tensor(5)},
        {"ema_state_dict": {**prefixed("module."), "steps": torch.tensor(5)}},
        prefixed("ema_model.module."),
        prefixed("ema_model."),
        {**WEIGHTS, "ema_model.module.neck.fc.weight": W + 1, "steps": torch.tensor(5)},
        {**WEIGHTS, "some_number": 3},
    ],
)
def test_containers_and_prefixes(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")

    found, meta = load_weights(tmp_path / "x.pth")

    check({name: found[name] for name in found if name != "steps"})
    assert meta == {}


def test_legacy_format_of_torch_before_1_6(tmp_path):
    torch.save(WEIGHTS, tmp_path / "x.pth", _use_new_zipfile_serialization=False)

    check(load_weights(str(tmp_path / "x.pth"))[0])


def test_safetensors_with_metadata(tmp_path):
    save_file(WEIGHTS, tmp_path / "x.safetensors", metadata={"format": "pt"})

    found, meta = load_weights(tmp_path / "x.safetensors")

    check(dict(sorted(found.items(), reverse=True)))
    assert meta == {"format": "pt"}


def test_checkpoint_of_mmengine(tmp_path):
    detector = nn.ModuleDict({"neck": nn.Linear(2, 1)})
    save_mmengine(tmp_path / "epoch_1.pth", detector, tiny_model("retinanet", 3))

    found, meta = load_weights(tmp_path / "epoch_1.pth")

    check(found, detector.state_dict())
    assert meta["epoch"] == 1
    assert "RetinaHead" in meta["cfg"]


def test_state_dict_of_ema_hook_is_the_average(tmp_path):
    """EMAHook itself writes the checkpoint, so that this holds for what MMEngine does."""
    model = nn.Linear(2, 1)
    hook = EMAHook()
    hook.src_model = model
    hook.ema_model = ExponentialMovingAverage(model)
    with torch.no_grad():
        hook.ema_model.module.weight.fill_(7)
        model.weight.fill_(1)
    checkpoint = {"meta": {}, "state_dict": OrderedDict(model.state_dict())}
    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / "ema.pth")

    found, _ = load_weights(tmp_path / "ema.pth")

    assert list(found) == ["weight", "bias"]
    assert found["weight"].eq(7).all()


def test_versions_of_modules_survive_prefixes(tmp_path):
    wrapped = nn.ModuleDict({"module": nn.Sequential(nn.BatchNorm2d(1))})
    torch.save(wrapped.state_dict(), tmp_path / "x.pth")

    found, _ = load_weights(tmp_path / "x.pth")

    assert next(iter(found)) == "0.weight"
    assert found._metadata["0"]["version"] == 2


def test_url_goes_through_the_safe_loader(tmp_path, monkeypatch):
    class Bad:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save(WEIGHTS, tmp_path / "good-0.pth")
    with (tmp_path / "bad-0.pth").open("wb") as file:
        pickle.dump({"state_dict": Bad()}, file)
    torch.save({"state_dict": Bad()}, tmp_path / "bad-1.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    (tmp_path / "home/hub").mkdir(parents=True)
    (tmp_path / "home/hub/checkpoints").symlink_to(tmp_path)  # as if downloaded before

    check(load_weights("https://invalid./good-0.pth")[0])
    for name in ("bad-0.pth", "bad-1.pth"):
        with pytest.raises(ValueError, match=name):
            load_weights(f"https://invalid./{name}")
    with pytest.raises(OSError, match=r"https://invalid\./no-0\.pth cannot be fetched"):
        load_weights("https://invalid./no-0.pth")

    assert not (tmp_path / "ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


class Foreign:
    """A class that no safe loader knows."""


def write_foreign(path, kind):
    if kind == "JPEG image":
        cv2.imwrite(str(path.with_suffix(".jpg")), np.zeros((4, 4, 3), np.uint8))
        path.with_suffix(".jpg").rename(path)
    elif kind == "text":
        path.write_text("epoch 1 was the best\n")
    elif kind == "web page":
        path.write_text("<!DOCTYPE html><title>404</title>")
    elif kind == "Git LFS pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\n")
    elif kind == "empty file":
        path.touch()
    elif kind == "bytes 00 01":
        path.write_bytes(bytes(range(64)))
    elif kind == "truncated":
        torch.save(WEIGHTS | {"x": torch.zeros(5000)}, path)
        path.write_bytes(path.read_bytes()[:9000])
    elif kind == "test_load_weights.Foreign":
        torch.save({"state_dict": WEIGHTS, "meta": Foreign()}, path)
    elif kind == r"holds no weights: found a dict with keys \['epoch', 'meta'\]":
        torch.save({"epoch": 3, "meta": {}}, path)
    elif kind == r"holds no weights: found a list with keys none":
        torch.save([1, 2], path)
    elif kind == "is a folder, expected a file. Name the checkpoint in it: epoch_1.pth":
        path.mkdir()
        torch.save(WEIGHTS, path / "epoch_1.pth")


@pytest.mark.parametrize(
    "kind",
    [
        "JPEG image",
        "text",
        "web page",
        "Git LFS pointer",
        "empty file",
        "bytes 00 01",
        "truncated",
        "test_load_weights.Foreign",
        r"holds no weights: found a dict with keys \['epoch', 'meta'\]",
        r"holds no weights: found a list with keys none",
        "is a folder, expected a file. Name the checkpoint in it: epoch_1.pth",
    ],
)
def test_foreign_file(tmp_path, kind):
    write_foreign(tmp_path / "best.pth", kind)

    with pytest.raises(ValueError, match=kind) as error:
        load_weights(tmp_path / "best.pth")

    message = str(error.value)
    assert str(tmp_path / "best.pth") in message
    assert "xpected" in message
    assert any(
        cure in message for cure in ("Check the path", "Save", "Pass", "Name the checkpoint")
    )


def test_truncated_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-4])

    with pytest.raises(ValueError, match=r"x\.safetensors is no readable safetensors file"):
        load_weights(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*no/epoch_1.pth. Check the"):
        load_weights(tmp_path / "no/epoch_1.pth")
