"""Options that the command lines of all runs share, and what they set."""

from __future__ import annotations

import argparse
import os
from typing import Any

from mmengine.config import DictAction
from mmengine.logging import MMLogger

from dap.launch import init_processes
from dap.runs.execution import Execution


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of reading, failures, output, device and processes.

    Args:
        parser: Parser of a tool that carries out a run. The tool adds ``--batch-size`` itself,
            since its default depends on the network.
    """
    add = parser.add_argument
    bad, timeout = Execution.max_bad_fraction, Execution.read_timeout
    add("--workers", type=int, help="reading processes per rank; default: by the number of cores")
    add(
        "--max-bad-fraction",
        type=float,
        default=bad,
        help="maximum share of failed images; default: %(default)s",
    )
    add(
        "--read-timeout",
        type=float,
        default=timeout,
        help="seconds to read an image, at most; default: %(default)s",
    )
    add("--retry-failed", action="store_true", help="retry images that failed in an earlier run")
    add("--no-coco", action="store_true", help="do not write annotations.json")
    add("--no-tf32", action="store_true", help="do not use TF32 on a GPU")
    add("--device", help="cpu, cuda, cuda:N; default: cuda if available")
    add("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    add("--cfg-options", nargs="+", action=DictAction, default={})
    add("--local-rank", "--local_rank", type=int, default=0)


def start_processes(args: argparse.Namespace) -> None:
    """Join the processes that the launcher has started, if any, and log under the name "dap".

    Raises:
        ValueError: See :func:`dap.launch.init_processes`.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if args.launcher == "slurm":  # torchrun sets it; readers share the cores of the node
        os.environ.setdefault("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", "1"))
    if args.launcher != "none":
        init_processes(args.launcher)
    MMLogger.get_instance("dap", logger_name="dap")


def execution_from(args: argparse.Namespace, **settings: Any) -> Execution:
    """Create the :class:`Execution` of a run from its command-line options.

    Args:
        args: Values of the options of :func:`add_run_options` and of ``--batch-size``.
        **settings: Further attributes of the execution.

    Raises:
        ValueError: If a value is out of range.
    """
    return Execution(
        num_workers=args.workers,
        batch_size=args.batch_size,
        max_bad_fraction=args.max_bad_fraction,
        retry_failed=args.retry_failed,
        read_timeout=args.read_timeout,
        coco=not args.no_coco,
        tf32=not args.no_tf32,
        **settings,
    )
