"""mmdet's runtime; importing dap lets MMEngine's checkpoints load under torch's safe loader."""

_base_ = ["mmdet::_base_/default_runtime.py"]

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
