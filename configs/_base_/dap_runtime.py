"""mmdet's default runtime, with ``import dap`` so that torch's safe loader reads checkpoints.

One hook compares the number of classes of head and data set, another one the total batch size with
that of the recipe. The third spares a resumed training the images that it has seen.
"""

_base_ = ["mmdet::_base_/default_runtime.py"]

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
custom_hooks = [
    dict(type="NumClassCheckHook"),
    dict(type="dap.TotalBatchHook"),
    dict(type="dap.ResumedDataHook"),
]
