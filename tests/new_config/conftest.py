"""The config of a tiny detector, and tiny data."""

import pytest

from tests.support.tiny_recipes import make_data, write_tiny_config


@pytest.fixture(scope="module")
def tiny_config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    return str(write_tiny_config(folder, "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))
