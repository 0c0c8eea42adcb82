"""Step 2 on a GPU from files to boxes: as on the CPU, and the same in each run."""

import gc
import subprocess
import sys

import pytest
import runs
import torch
from runs import DEVICE, NEEDS_GPU, SHARDS_BEFORE_KILL, SMALL_WINDOW, agreement

from dap.pseudo_boxes import pipeline
from dap.testing import draw_image, write_image
from tests.support.planted_runs import tree
from tests.support.workplace import ROOT, Place

pytestmark = NEEDS_GPU


def test_boxes_are_those_of_the_cpu(zoo, tmp_path):
    on_cpu = zoo.generate(tmp_path / "cpu", "cpu")
    on_gpu = zoo.generate(tmp_path / "gpu", tf32=False)
    assert on_gpu["images"] == on_cpu["images"] == 120
    assert agreement(tmp_path / "gpu", tmp_path / "cpu") >= 0.95


@pytest.mark.parametrize("autocast", [None, "bf16", "fp16"])
def test_two_runs_give_the_same_bytes(zoo, tmp_path, autocast):
    for name in ("one", "two"):
        assert zoo.generate(tmp_path / name, autocast=autocast)["images"] == 120
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_cudnn_that_times_its_algorithms_changes_no_byte(zoo, tmp_path, monkeypatch):
    """A training whose hook makes boxes has often set it; it is set again afterwards."""
    zoo.generate(tmp_path / "one")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    zoo.generate(tmp_path / "two")
    assert torch.backends.cudnn.benchmark
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_run_that_was_killed_goes_on_with_the_same_bytes(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "WINDOW_GPU", SMALL_WINDOW)
    zoo.generate(tmp_path / "whole")
    command = [sys.executable, runs.__file__, zoo.folder, tmp_path / "killed"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stdout + done.stderr
    assert len(list((tmp_path / "killed" / "shards").glob("*.arrow"))) == SHARDS_BEFORE_KILL
    zoo.generate(tmp_path / "killed")
    files = [tree(tmp_path / name) for name in ("whole", "killed")]
    for shards in files:
        shards.pop(".lock", None)
    assert files[0] == files[1]


def test_second_gpu(zoo, tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    zoo.generate(tmp_path / "first", "cuda:0")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(0)
    before = torch.cuda.memory_allocated(0)
    zoo.generate(tmp_path / "second", "cuda:1")
    assert torch.cuda.max_memory_allocated(0) == before
    assert torch.cuda.current_device() == 0
    assert agreement(tmp_path / "first", tmp_path / "second") >= 0.95


def test_out_of_memory_halves_the_batch_and_the_boxes_stay(zoo, tmp_path, capsys):
    """A third of what 32 images take: neither 32 nor 16 fit, but 8."""
    images = tmp_path / "images"
    for number in range(42):
        colour = ("blue", "green", "red")[number % 3]
        place = (10 + number, 20, 60 + number, 70)
        write_image(images / colour / f"{number}.png", draw_image((96, 128), [place], [colour]))
    options = {"images": images, "sides": (576,), "tf32": False}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    zoo.generate(tmp_path / "plenty", **options)
    assert "too little memory" not in capsys.readouterr().out
    peak = torch.cuda.max_memory_allocated()
    gc.collect()
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved()
    allowed = held + (peak - held) / 3
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        summary = zoo.generate(tmp_path / "scarce", **options)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    log = capsys.readouterr().out
    assert "too little memory for 32 images" in log
    assert "too little memory for 16 images" in log
    assert summary["images"] == 42
    assert agreement(tmp_path / "plenty", tmp_path / "scarce") >= 0.95


def test_torchrun_with_nccl_ends_without_a_warning(zoo, tmp_path):
    config = tmp_path / "classifier.py"
    zoo.config().dump(config)
    output = Place(tmp_path).run(
        "bash", ROOT / "tools" / "dist.sh", "boxes", 1, config, zoo.checkpoint,
        "--out", tmp_path / "torchrun", "--keep-going", "--shard-size", 16, "--workers", 2,
    )  # fmt: skip
    for text in ("destroy_process_group", "NOT been destroyed", "barrier()", "Traceback"):
        assert text not in output
    zoo.generate(tmp_path / "one", DEVICE)
    for name in ("manifest.json", "annotations.json"):
        files = [tmp_path / run / name for run in ("one", "torchrun")]
        assert files[0].read_bytes() == files[1].read_bytes()
