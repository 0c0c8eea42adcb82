"""mmdet's runtime; ``import dap`` lets checkpoints load, the hook compares head and data set."""

_base_ = ["mmdet::_base_/default_runtime.py"]

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
custom_hooks = [dict(type="NumClassCheckHook")]
