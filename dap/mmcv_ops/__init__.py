"""mmcv's operators by torch and torchvision, for an mmcv that was installed without a compiler.

``mmcv-lite`` contains ``mmcv/ops/*.py`` but not the compiled module ``mmcv._ext``
that they call. ``_ext.py`` and ``_ext_torch/`` of this folder, placed in the folder
``mmcv/``, take its role. A compiled ``_ext*.so`` in the same folder is preferred by
Python, so that a compiled mmcv stays as it is. Nothing here imports ``dap``.
"""
