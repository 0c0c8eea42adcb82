"""What ``mmcv.ops.get_compiler_version`` and its CUDA twin report in environment listings."""


def get_compiler_version() -> str:
    """Name the source of the operators, since no compiler was used."""
    return "none (operators by torch and torchvision)"


def get_compiling_cuda_version() -> str:
    """Say that no CUDA toolkit was used. The operators run on torch's CUDA."""
    return "not available"
