"""Functions called in several processes that torch.distributed joins."""

import multiprocessing
import os
import traceback

import torch
import torch.distributed as dist


def in_ranks(function, size, folder):
    """Call ``function(rank)`` in ``size`` processes.

    Returns:
        Per rank, the result, or the text of the exception.
    """
    context = multiprocessing.get_context("fork")
    results = [context.SimpleQueue() for _ in range(size)]
    store = folder / f"store_{len(list(folder.glob('store_*')))}"
    processes = [
        context.Process(target=_call, args=(function, rank, size, store, results[rank]))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
            raise AssertionError("a process did not end")
    return [queue.get() if not queue.empty() else "no result" for queue in results]


def _call(function, rank, size, store, results):
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    try:
        results.put(function(rank))
    except Exception as error:  # noqa: BLE001 - the test looks at it
        results.put(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    os._exit(0)
