import logging
import os

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from dap.hooks import total_batch_hook
from tests.support.tiny_runner import Line, Numbers


class SizedNumbers(Numbers):
    """Every other one is upright."""

    def __len__(self):
        return 16

    def get_data_info(self, index):
        return {"width": 10 + index % 2, "height": 10 + (index + 1) % 2}

    def get_dataset_source(self, index):
        return index // 8


def make_runner(
    work_dir, batch, loop, base, *, enable=True, loader=None, optim_wrapper=None, **settings
):
    return Runner(
        model=Line(),
        work_dir=str(work_dir),
        train_dataloader={
            **{"dataset": SizedNumbers(), "batch_size": batch, "num_workers": 0},
            **{"sampler": {"type": "DefaultSampler", "shuffle": False}, **(loader or {})},
        },
        train_cfg=loop,
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.08}, **(optim_wrapper or {})},
        param_scheduler=[{"type": "LinearLR", "start_factor": 0.5, "end": 2, "by_epoch": False}],
        auto_scale_lr=base and {"enable": enable, "base_batch_size": base},
        custom_hooks=[{"type": "dap.TotalBatchHook"}],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 2, "by_epoch": False}},
        **settings,
    )


def iterations(number):
    return {"type": "IterBasedTrainLoop", "max_iters": number}


def epochs(number):
    return {"type": "EpochBasedTrainLoop", "max_epochs": number}


def said(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [line.split(" - WARNING - ")[1] for line in lines if "WARNING - total batch" in line]


def base_rates(runner):
    return [group["initial_lr"] for group in runner.optim_wrapper.param_groups]


def test_smaller_batch(tmp_path, capsys):
    runner = make_runner(tmp_path, 2, iterations(3), base=16)
    runner.train()
    assert said(capsys) == [
        "total batch 2 (2 x 1 process); the config's recipe is for 16; LR in the config 0.08, "
        "used 0.01: scaled by 2/16; an iteration sees 1/8 of the images; MMEngine scales nothing "
        "that counts iterations"
    ]
    assert base_rates(runner) == [0.01]


def test_larger_batch_with_aspect_ratios(tmp_path, capsys):
    """The data loader has no batch_size then."""
    loader = {"batch_sampler": {"type": "mmdet.AspectRatioBatchSampler"}}
    runner = make_runner(tmp_path, 4, epochs(1), base=2, loader=loader)
    runner.train()
    assert runner.train_dataloader.batch_size is None
    assert said(capsys) == [
        "total batch 4 (4 x 1 process); the config's recipe is for 2; LR in the config 0.08, used "
        "0.16: scaled by 4/2; an iteration sees 2 times the images; MMEngine scales nothing that "
        "counts iterations"
    ]
    assert base_rates(runner) == [0.16]


def test_silent_where_each_data_set_has_a_batch_size_of_its_own(tmp_path, capsys):
    """A batch is then of 2 images or of 6, never of all 8."""
    loader = {"batch_sampler": {"type": "mmdet.MultiDataAspectRatioBatchSampler",
                                "num_datasets": 2}}  # fmt: skip
    runner = make_runner(tmp_path, [2, 6], iterations(2), base=16, enable=False, loader=loader)
    runner.train()
    assert runner.iter == 2
    assert said(capsys) == []


def test_silent_if_equal(tmp_path, capsys):
    for number, loop in enumerate((iterations(2), epochs(1))):
        for enable in (True, False):
            make_runner(tmp_path / str(number), 4, loop, base=4, enable=enable).train()
    assert said(capsys) == []


def test_silent_without_auto_scale_lr(tmp_path, capsys):
    make_runner(tmp_path, 4, iterations(1), base=None).train()
    assert said(capsys) == []


def test_not_enabled(tmp_path, capsys):
    runner = make_runner(tmp_path, 2, iterations(2), base=16, enable=False)
    runner.train()
    (line,) = said(capsys)
    assert "used 0.08: NOT scaled to the batch (to have it scaled: auto_scale_lr.enable=T" in line
    assert "an iteration sees 1/8 of the images" in line
    assert base_rates(runner) == [0.08]


def test_accumulation_that_mmengine_leaves_out(tmp_path, capsys):
    runner = make_runner(
        tmp_path, 2, iterations(8), base=16, optim_wrapper={"accumulative_counts": 8}
    )
    runner.train()
    (line,) = said(capsys)
    assert line.startswith("total batch 16 (2 x 1 process x 8 accumulated iterations); ")
    assert "used 0.01: scaled by 2/16, which leaves the 8 accumulated iterations out" in line
    assert "an iteration sees 1/8 of the images" in line
    assert base_rates(runner) == [0.01]


def test_accumulation_with_the_learning_rate_of_the_whole_batch(tmp_path, capsys):
    runner = make_runner(
        tmp_path, 2, iterations(8), base=16, optim_wrapper={"accumulative_counts": 8}, enable=False
    )
    runner.train()
    assert said(capsys) == []
    assert base_rates(runner) == [0.08]


def test_accumulation_beyond_the_recipe(tmp_path, capsys):
    make_runner(
        tmp_path, 4, iterations(2), base=4, optim_wrapper={"accumulative_counts": 2}
    ).train()
    (line,) = said(capsys)
    assert line.startswith("total batch 8 (4 x 1 process x 2 accumulated iterations); ")
    assert "used 0.08: scaled by 4/4, which leaves the 2 accumulated" in line
    assert "an iteration sees" not in line


def test_several_learning_rates(tmp_path, capsys):
    twice = {"paramwise_cfg": {"bias_lr_mult": 2}}
    runner = make_runner(tmp_path, 2, iterations(1), base=16, optim_wrapper=twice)
    runner.train()
    (line,) = said(capsys)
    assert "LR in the config 0.08, used 0.01 to 0.02: scaled by 2/16" in line


def resume(folder, batch):
    """With a logger of its own: MMEngine's leave out a warning that they have shown before."""
    name = "resumed"  # else that of the second in which the runner is made
    return make_runner(folder, batch, iterations(4), base=4, resume=True, experiment_name=name)


def test_resumed_with_another_batch(tmp_path, capsys):
    make_runner(tmp_path, 4, iterations(2), base=4).train()
    runner = resume(tmp_path, 2)
    runner.train()
    (line,) = said(capsys)
    assert (
        "LR in the config 0.08, used 0.08, which the resumed checkpoint has (scaling gives 0.04)"
    ) in line
    assert base_rates(runner) == [0.08]


def test_resumed_with_the_batch_of_the_recipe(tmp_path, capsys):
    """The batch is right, the learning rate is not."""
    make_runner(tmp_path, 2, iterations(2), base=4).train()
    said(capsys)
    resume(tmp_path, 4).train()
    (line,) = said(capsys)
    assert "used 0.04, which the resumed checkpoint has (scaling gives 0.08)" in line


def test_resumed_with_the_same_batch(tmp_path, capsys):
    for batch, count in ((4, 0), (2, 1)):
        work_dir = tmp_path / str(batch)
        make_runner(work_dir, batch, iterations(2), base=4).train()
        said(capsys)
        runner = resume(work_dir, batch)
        runner.train()
        assert runner.iter == 4
        lines = said(capsys)
        assert len(lines) == count
        assert all("used 0.04: scaled by 2/4" in line for line in lines)


def test_several_optimizers():
    first, second = (torch.optim.SGD(Line().parameters(), lr=lr) for lr in (0.1, 0.2))
    both = OptimWrapperDict(a=OptimWrapper(first), b=OptimWrapper(second, accumulative_counts=4))
    assert total_batch_hook.accumulated_iterations(both) == 4
    assert total_batch_hook.configured_learning_rates(both) == [0.1, 0.2]
    assert total_batch_hook.base_learning_rates(both) == [0.1, 0.2]


def train_in_two_processes(rank, folder):
    os.environ["LOCAL_RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    wrapper = {"type": "MMDistributedDataParallel", "device_ids": None}
    runner = make_runner(
        folder, 2, epochs(0), base=16, launcher="pytorch", cfg={"model_wrapper_cfg": wrapper}
    )
    runner.train()
    logging.shutdown()
    torch.distributed.barrier()
    os._exit(0)  # in a forked process gloo may wait forever for its threads when it is destroyed


def test_two_processes(tmp_path):
    """Forked, to save the imports, and hence without a backward pass."""
    torch.multiprocessing.start_processes(
        train_in_two_processes, (str(tmp_path),), nprocs=2, start_method="fork"
    )
    logs = "".join(path.read_text() for path in tmp_path.rglob("*.log"))
    (line,) = (line for line in logs.splitlines() if "WARNING - total batch" in line)
    assert "total batch 4 (2 x 2 processes); the config's recipe is for 16; " in line
    assert "used 0.02: scaled by 4/16" in line
    assert "an iteration sees 1/4 of the images" in line
