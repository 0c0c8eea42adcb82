"""mmcv's operators, implemented with torch and torchvision, for an mmcv without compiled code.

``mmcv-lite`` contains ``mmcv/ops/*.py`` but not the compiled module ``mmcv._ext``
that they call. ``_ext.py`` and ``_ext_torch/`` of this folder replace it: they are
installed into the folder ``mmcv/``. Python prefers a compiled ``_ext*.so`` in the same
folder, so that they have no effect on a compiled mmcv. Nothing here imports ``dap``.
"""
