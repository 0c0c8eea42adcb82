"""mmdet's runtime; ``import dap`` lets checkpoints load.

One hook compares head and data set, the other the total batch and the one of the recipe.
"""

_base_ = ["mmdet::_base_/default_runtime.py"]

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
custom_hooks = [dict(type="NumClassCheckHook"), dict(type="dap.TotalBatchHook")]
