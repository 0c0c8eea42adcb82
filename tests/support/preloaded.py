"""Imports of a training, loaded once by the server that forks the processes of tests."""

# ruff: noqa: F401

import mmdet.apis
import mmdet.engine
import mmdet.models
import mmpretrain.models
import torch.utils.cpp_extension

import dap.hooks
import dap.transfer
import tests.support.fast_configs
