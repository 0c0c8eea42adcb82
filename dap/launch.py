"""One process of a distributed run: ``python -m dap.launch PACKAGE TOOL CONFIG [ARGUMENTS]``.

Runs the installed ``TOOL.py`` (train or test) of mmdet or mmpretrain in this process, which
torchrun (tools/dist.sh) or Slurm (tools/slurm.sh) has started. MMEngine takes it for granted that
each process has a GPU; where there is none, torchrun's processes talk through gloo instead, and the
model stays on the CPU.
"""

import argparse
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import init_dist


def installed_tool(package: str, tool: str) -> Path:
    """Find a tool that came with an OpenMMLab package.

    Args:
        package: "mmdet" or "mmpretrain".
        tool: Its name without ``.py``.

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
    """Options that keep MMEngine from handing a GPU to DistributedDataParallel.

    MMEngine's own settings for the wrapper hold only as long as a config has none, so that they
    are repeated here.

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
    """Let the processes of a launcher find each other: by nccl, or by gloo where no GPU is.

    Args:
        launcher: "pytorch" (torchrun) or "slurm".

    Raises:
        ValueError: If there is no GPU and the launcher is not torchrun.
    """
    if torch.cuda.is_available():
        init_dist(launcher)
    elif launcher == "pytorch":
        torch.distributed.init_process_group("gloo")
    else:
        raise ValueError(
            f"launcher {launcher!r} needs a GPU for each process, and this machine has none. On "
            "CPUs start the processes with torchrun and pass --launcher pytorch"
        )


def launcher_in(arguments: Sequence[str]) -> str:
    """Read ``--launcher`` from the arguments of a tool, "none" if it is not there."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--launcher", default="none")
    return parser.parse_known_args(arguments)[0].launcher


def main(package: str, tool: str, config: str, *arguments: str) -> None:
    """Run the tool as if it had been called by its path."""
    path, extra = installed_tool(package, tool), []
    launcher = launcher_in(arguments)
    # With GPUs the tool does it by itself.
    if launcher != "none" and not torch.cuda.is_available():
        try:
            init_processes(launcher)
        except ValueError as error:
            sys.exit(f"error: {error}")
        extra = options_without_gpu(config)
    sys.argv = [str(path), config, *arguments, *extra]
    runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
