"""RTMDet-tiny's model alone; its data and schedule would clash with those of the steps."""

_base_ = []  # tells MMEngine that this config has no lazy imports

from mmengine.hub import get_config  # noqa: E402

model = get_config("mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py").model.to_dict()
model["data_preprocessor"]["pad_size_divisor"] = 32  # its own pipelines pad the images
