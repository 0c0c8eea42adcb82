"""What trainings import: loaded once, by the server that forks the processes of tests."""

# ruff: noqa: F401

import gc

import mmdet.apis
import mmdet.engine
import mmdet.models
import mmpretrain.models
import torch.utils.cpp_extension

import dap.hooks
import dap.transfer
import tests.support.fast_configs

gc.freeze()  # mmengine's datasets call gc.collect(), .2 s with all this
