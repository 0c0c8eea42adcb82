"""Small networks behind the interface of mmpretrain, with random weights."""

import torch
from mmpretrain.registry import MODELS
from torch import nn

NORMALIZATION = {"mean": [120.0] * 3, "std": [60.0] * 3}
TINY_VIT = {
    "type": "VisionTransformer",
    "arch": {"embed_dims": 12, "num_layers": 2, "num_heads": 2, "feedforward_channels": 24},
    "img_size": 64,
    "patch_size": 16,
}


def classifier(backbone, neck=None, head=None, channels=12, classes=5, seed=0):
    """An ImageClassifier of mmpretrain in evaluation mode; norms are not the identity."""
    torch.manual_seed(seed)
    model = MODELS.build(
        {
            "type": "ImageClassifier",
            "backbone": backbone,
            "neck": neck,
            "head": head
            or {"type": "LinearClsHead", "num_classes": classes, "in_channels": channels},
            "data_preprocessor": dict(NORMALIZATION),
        }
    )
    return randomized(model)


def randomized(model):
    """Give all parameters and statistics other values than those they start from."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.2 * torch.randn_like(value))
        for name, value in model.named_buffers():
            if name.endswith("running_var"):
                value.add_(torch.rand_like(value))
            elif name.endswith("running_mean"):
                value.add_(torch.randn_like(value))
    return model.eval()


def convnext(neck=None, **changes):
    backbone = {
        "type": "ConvNeXt",
        "arch": {"depths": [1, 1, 1, 1], "channels": [4, 4, 8, 12]},
        "gap_before_final_norm": True,
        **changes,
    }
    return classifier(backbone, neck)


def vit(out_type="cls_token", **changes):
    final_norm = {"final_norm": False} if out_type == "avg_featmap" else {}
    head = {"type": "VisionTransformerClsHead", "num_classes": 5, "in_channels": 12}
    backbone = {**TINY_VIT, "out_type": out_type, **final_norm, **changes}
    return classifier(backbone, head=None if out_type == "avg_featmap" else head)


class Wrapped(nn.Module):
    """A network of any kind as a classifier."""

    def __init__(self, network):
        super().__init__()
        self.model = network
        self.data_preprocessor = MODELS.build({"type": "ClsDataPreprocessor", **NORMALIZATION})
