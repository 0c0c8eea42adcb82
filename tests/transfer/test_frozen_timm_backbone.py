"""Parts of a timm backbone that a training leaves as they are."""

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

from dap.registry import MODELS

pytest.importorskip("timm", reason="of the dependency group lite0")
FIRST = ("timm_model.conv_stem", "timm_model.bn1", "timm_model.blocks.0")


def build(kind="dap.FrozenTIMMBackbone", **options):
    init_default_scope("mmdet")
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type=kind,
            model_name="tf_efficientnet_lite0",
            features_only=True,
            out_indices=(1, 2, 3, 4),
            **options,
        )
    )


def changed_by_a_step(backbone):
    """Names of weights and statistics that a step of training changes."""
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.train()
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    sum(level.square().mean() for level in backbone(picture)).backward()
    optimizer.step()
    after = backbone.state_dict()
    return {name for name in after if not torch.equal(after[name], before[name])}


def of_batch_norm(backbone):
    return {
        f"{name}.{key}"
        for name, module in backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key in module.state_dict()
    }


def test_frozen_layers_and_fixed_batch_norm_stay():
    backbone = build(frozen=FIRST, fixed_batch_norm=True)
    changed = changed_by_a_step(backbone)
    kept = {name for name in backbone.state_dict() if name.startswith(FIRST)}
    assert len(kept) > 10
    assert changed == set(backbone.state_dict()) - kept - of_batch_norm(backbone)


def test_without_options_all_is_trained():
    backbone = build()
    assert changed_by_a_step(backbone) == set(backbone.state_dict())


def test_all_frozen():
    backbone = build(frozen=["timm_model"])
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(module.training for module in backbone.train().timm_model.modules())


def test_weights_are_those_of_the_plain_backbone():
    plain, frozen = build("mmpretrain.TIMMBackbone"), build(frozen=FIRST, fixed_batch_norm=True)
    frozen.load_state_dict(plain.state_dict())
    frozen.eval()
    plain.eval()
    picture = torch.rand(1, 3, 64, 64)
    for own, theirs in zip(frozen(picture), plain(picture), strict=True):
        assert torch.equal(own, theirs)


def test_unknown_module():
    with pytest.raises(ValueError, match=r"frozen: no module 'layer1' .* such as timm_model, "):
        build(frozen=["layer1"])
