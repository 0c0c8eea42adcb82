"""Weights out of every kind of checkpoint, and a clear word about everything else."""

import argparse
import json
import os
import pathlib
import pickle
import tarfile
from collections import OrderedDict, defaultdict

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from safetensors.torch import save_file
from torch import nn

from dap.checkpoint import load_weights, require_finite
from tests.support.tiny_detectors import save_mmengine, tiny_model

W, B = torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])
WEIGHTS = {"neck.fc.weight": W, "neck.fc.bias": B}
OPTIMIZER = {
    "state": {i: {"exp_avg": torch.zeros(3, 3), "step": torch.tensor(1)} for i in range(9)},
    "param_groups": [{"lr": 0.1, "params": list(range(9))}],
}


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
        {"epoch": 5, "model_state_dict": WEIGHTS, "loss": torch.tensor(0.4)},
        {"net": WEIGHTS, "acc": 91.2},
        {"params_ema": WEIGHTS, "params": {"neck.fc.weight": W + 1}},
        {"teacher": WEIGHTS, "student": {"neck.fc.weight": W + 1, "neck.fc.bias": B}},
        {"checkpoint": {"trainer": {"network": WEIGHTS}}, "loss_matrix": torch.ones(2, 2)},
        {"some_name": WEIGHTS, "adam": OPTIMIZER, "lr_scheduler": {"a": torch.ones(9, 9)}},
        {"state": {"step": torch.tensor(3)}, "some_name": WEIGHTS},
        {"state_dict": WEIGHTS, "callbacks": {"ema": {"state_dict": {"neck.fc.weight": W + 1}}}},
        [7, WEIGHTS, OPTIMIZER],
        {"model": {name: value.numpy() for name, value in WEIGHTS.items()}},
        {
            "model": WEIGHTS,
            "args": argparse.Namespace(out=pathlib.Path("x"), many=defaultdict(list)),
        },
        prefixed("_fsdp_wrapped_module."),
        prefixed("module._forward_module.module."),
        {
            "neck._fsdp_wrapped_module._checkpoint_wrapped_module.fc.weight": W,
            "neck._fsdp_wrapped_module._checkpoint_wrapped_module.fc.bias": B,
        },
        {**prefixed("module."), "epoch": torch.tensor(5)},
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


def test_what_was_chosen_is_logged(tmp_path, log):
    torch.save({"student": prefixed("a."), "teacher": WEIGHTS}, tmp_path / "dino.pth")

    load_weights(tmp_path / "dino.pth")

    assert "taken from ['teacher'] (2 tensors), not from ['student'] (2)" in log()


def test_content_counts_not_the_name(tmp_path):
    save_file(WEIGHTS, tmp_path / "x.pth")
    torch.save(WEIGHTS, tmp_path / "x.safetensors")

    check(dict(sorted(load_weights(tmp_path / "x.pth")[0].items(), reverse=True)))
    check(load_weights(tmp_path / "x.safetensors")[0])


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_index_of_parts(tmp_path, kind):
    save = save_file if kind == "safetensors" else torch.save
    files = {f"neck.fc.{n}": f"m-0000{i}-of-00002.{kind}" for i, n in enumerate(("weight", "bias"))}
    for name, file in files.items():
        save({name: WEIGHTS[name]}, tmp_path / file)
    index = tmp_path / f"m.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))

    check(load_weights(index)[0])
    with pytest.raises(ValueError, match=rf"one of 2 parts .* Pass the index .*: m.{kind}.index"):
        load_weights(tmp_path / files["neck.fc.bias"])
    (tmp_path / files["neck.fc.bias"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"m-00001-of.*1 of 2 files are missing"):
        load_weights(index)
    index.write_text("{}")
    with pytest.raises(ValueError, match="no readable index"):
        load_weights(index)


def write_tar(path):
    (path.parent / "inside.pth").write_bytes(b"0")
    with tarfile.open(path, "w") as archive:
        archive.add(path.parent / "inside.pth", "inside.pth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda path: torch.jit.script(nn.Linear(2, 1)).save(path),
            r"TorchScript archive .*torch\.jit\.load\('x\.pth'\)\.state_dict\(\)",
        ),
        (
            lambda path: torch.save(nn.Linear(2, 1), path),
            "object of torch.nn.modules.linear.Linear",
        ),
        (
            lambda path: torch.save(nn.Linear(2, 1), path, _use_new_zipfile_serialization=False),
            "object of torch.nn.modules.linear.Linear",
        ),
        (lambda path: torch.save(WEIGHTS, path, pickle_protocol=4), "pickle protocol"),
        (lambda path: path.write_bytes(pickle.dumps({"model": [0] * 40})), "did not write"),
        (lambda path: np.savez(path.open("wb"), a=np.ones(2)), "zip archive .* holds a.npy"),
        (write_tar, "tar archive"),
        (lambda path: torch.save({"best": WEIGHTS, "last": WEIGHTS}, path), r"\['best'\] and in"),
        (
            lambda path: torch.save({"ema": {"shadow_params": [W, B]}, "optim": OPTIMIZER}, path),
            r"\['ema'\]\['shadow_params'\] is a list of 2 tensors",
        ),
        (lambda path: torch.save(OPTIMIZER, path), "holds no weights: .*'param_groups', 'state'"),
        (
            lambda path: torch.save(
                {"a.weight": torch.quantize_per_tensor(W, 1, 0, torch.qint8)}, path
            ),
            "a.weight is quantised",
        ),
        (lambda path: torch.save({"a.weight": W.to(torch.int8)}, path), "a.weight is quantised"),
        (lambda path: torch.save({"a.weight": W.to_sparse()}, path), "a.weight is sparse"),
        (lambda path: torch.save({"a.weight": W.to("meta")}, path), "without values"),
    ],
)
def test_what_is_no_state_dict_says_so(tmp_path, write, message):
    write(tmp_path / "x.pth")

    with pytest.raises(ValueError, match=rf"x\.pth.*{message}") as error:
        load_weights(tmp_path / "x.pth")

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["legacy", "zip", "safetensors", "legacy model"])
def test_cut_file_is_one_sentence_wherever_it_is_cut(tmp_path, kind):
    path = tmp_path / "x.pth"
    content = {"state_dict": WEIGHTS, "meta": {"a": np.float64(3)}, "optimizer": OPTIMIZER}
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    elif kind == "legacy model":
        torch.save({"model": Foreign()}, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()

    for size in range(0, len(whole), 1 if len(whole) < 2000 else 13):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"x\.pth (cannot|is no)") as error:
            load_weights(path)
        assert type(error.value) is ValueError  # no UnicodeDecodeError, no JSONDecodeError
        assert "\n" not in str(error.value)
        assert "truncated" in str(error.value) or "found bytes" in str(error.value) or size == 0


def test_allowed_whole_model_gives_its_state_dict(tmp_path):
    torch.save({"model": nn.Linear(2, 1)}, tmp_path / "x.pth")

    with torch.serialization.safe_globals([nn.Linear]):
        found, _ = load_weights(tmp_path / "x.pth")

    assert list(found) == ["weight", "bias"]


def test_weights_that_are_not_finite_are_named_and_counted():
    weights = {"a": W, "steps": torch.tensor(3), "b": W * float("nan"), "c": B / 0}
    weights["eight_bits"] = W.to(torch.float8_e4m3fn)

    with pytest.raises(ValueError, match=r"x\.pth: b holds .* one of 2 such .* among 5.*earlier"):
        require_finite(weights, "x.pth")

    require_finite({name: weights[name] for name in ("a", "steps", "eight_bits")}, "x.pth")


@pytest.mark.parametrize("url", ["torchvision://resnet999", "open-mmlab://resnet999"])
def test_name_that_no_model_zoo_has(url):
    with pytest.raises(ValueError, match=f"{url} is not known to MMEngine .* Check the name"):
        load_weights(url)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*no/epoch_1.pth. Check the"):
        load_weights(tmp_path / "no/epoch_1.pth")
