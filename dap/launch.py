"""One process of a distributed run: ``python -m dap.launch PACKAGE TOOL CONFIG [ARGUMENTS]``.

Runs the installed ``TOOL.py`` (train or test) of mmdet or mmpretrain in this process, which
torchrun (tools/dist.sh) or Slurm (tools/slurm.sh) has started. MMEngine assumes that each process
has a GPU. Without GPUs, the processes use the backend gloo, and the model stays on the CPU.
"""

import argparse
import importlib.util
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import init_dist


def installed_tool(package: str, tool: str) -> Path:
    """Find a tool that is installed with an OpenMMLab package.

    Args:
        package: "mmdet" or "mmpretrain".
        tool: Name of the tool without ``.py``.

    Returns:
        Path of the script below ``PACKAGE/.mim/tools``.

    Raises:
        FileNotFoundError: If the package has no such tool.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"no package {package!r} is installed")
    path = Path(spec.origin).parent / ".mim" / "tools" / f"{tool}.py"
    if not path.is_file():
        raise FileNotFoundError(f"{package} has no {path}: install it from a wheel or with mim")
    return path


def options_without_gpu(config: str) -> list[str]:
    """Options that keep MMEngine from passing a GPU to DistributedDataParallel.

    MMEngine's defaults for the wrapper apply only if a config does not set ``model_wrapper_cfg``,
    so that they are repeated here.

    Args:
        config: Path of the config.

    Returns:
        Arguments to append to those of the tool.
    """
    cfg = Config.fromfile(config, import_custom_modules=False)
    options = ["--cfg-options", "model_wrapper_cfg.device_ids=None"]
    if cfg.get("model_wrapper_cfg") is None:
        unused = cfg.get("find_unused_parameters", False)
        options.append("model_wrapper_cfg.broadcast_buffers=False")
        options.append(f"model_wrapper_cfg.find_unused_parameters={unused}")
    return options


def init_processes(launcher: str) -> None:
    """Initialise the process group of a launcher, with nccl, or with gloo if there is no GPU.

    Args:
        launcher: "pytorch" (torchrun) or "slurm".

    Raises:
        ValueError: If it is another launcher and there is no GPU, or if this process was not
            started by Slurm.
    """
    if launcher == "slurm":
        set_slurm_port()
    if torch.cuda.is_available():
        # MMEngine would choose spawn, by which each process that reads images would get a copy of
        # the list of images.
        if multiprocessing.get_start_method(allow_none=True) is None:
            multiprocessing.set_start_method("fork")
        init_dist(launcher)
    elif launcher == "pytorch":
        torch.distributed.init_process_group("gloo")
    elif launcher == "slurm":
        _init_gloo_of_slurm()
    else:
        raise ValueError(
            f"launcher {launcher!r} needs a GPU for each process, and this machine has none. On "
            "CPUs start the processes with torchrun and pass --launcher pytorch"
        )


def set_slurm_port() -> None:
    """Set MASTER_PORT, unless it is set, to the same port in all processes of a Slurm step.

    The port depends on the IDs of job and step, so that jobs on the same node use different ports;
    MMEngine's default is 29500 for all jobs. Ports from 10000 to 29999 are below the ephemeral
    ports of the system.

    Raises:
        ValueError: If this process was not started by Slurm.
    """
    if "SLURM_JOB_ID" not in os.environ or "SLURM_PROCID" not in os.environ:
        raise ValueError(
            "launcher 'slurm': there is no SLURM_JOB_ID or SLURM_PROCID among the environment "
            "variables; expected a process started by srun, as tools/slurm.sh does"
        )
    job, step = (int(os.environ.get(f"SLURM_{name}_ID", 0)) for name in ("JOB", "STEP"))
    os.environ.setdefault("MASTER_PORT", str(10000 + (16 * job + step) % 20000))


def _init_gloo_of_slurm() -> None:
    """Initialise torch.distributed from Slurm's variables, as MMEngine does with GPUs."""
    nodes = ["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]]
    host = subprocess.run(nodes, capture_output=True, text=True, check=True).stdout.split()[0]
    os.environ.setdefault("MASTER_ADDR", host)
    for name, source in (("RANK", "PROCID"), ("WORLD_SIZE", "NTASKS"), ("LOCAL_RANK", "LOCALID")):
        os.environ[name] = os.environ[f"SLURM_{source}"]
    torch.distributed.init_process_group("gloo")


def launcher_in(arguments: Sequence[str]) -> str:
    """Read ``--launcher`` from the arguments of a tool; the default is "none"."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--launcher", default="none")
    return parser.parse_known_args(arguments)[0].launcher


def main(package: str, tool: str, config: str, *arguments: str) -> None:
    """Run a tool in this process, with the arguments of the command line."""
    path, extra = installed_tool(package, tool), []
    launcher = launcher_in(arguments)
    try:
        if launcher != "none" and not torch.cuda.is_available():
            init_processes(launcher)
            extra = options_without_gpu(config)
        elif launcher == "slurm":  # with GPUs, the tool initialises the processes
            set_slurm_port()
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.argv = [str(path), config, *arguments, *extra]
    runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
