import copy

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from dap._malloc import tune_malloc
from dap.classifiers.fast_forward import fold_batch_norm
from tests.support.zoo import zoo_config


def set_norm(norm: nn.Module, mean: float, var: float, gamma: float, beta: float) -> nn.Module:
    """Give a norm one value for all channels; ``var`` includes the eps, which is 1."""
    norm.eps = 1.0
    for tensor, value in zip(
        (norm.running_mean, norm.running_var, norm.weight, norm.bias),
        (mean, var - 1, gamma, beta),
        strict=True,
    ):
        nn.init.constant_(tensor, value)
    return norm


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomize(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.2)
    model.eval()
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def agree(model: nn.Module, folded: nn.Module, images: Tensor) -> bool:
    with torch.no_grad():
        ours, theirs = folded(images), model(images)
    ours, theirs = (x[-1] if isinstance(x, tuple | list) else x for x in (ours, theirs))
    return bool((ours - theirs).abs().max() <= 1e-4 * theirs.abs().max())


class NormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class HiddenFactor(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Standardized(nn.Conv2d):
    """A convolution that computes its weight from the parameter."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class Residual(nn.Module):
    """The stem's output goes into its norm and, as it is, into the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.body, self.body_norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        stem = self.stem(x)
        return (self.body_norm(self.body(self.stem_norm(stem))) + stem,)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.conv(self.first(self.conv(x))))


class EarlyOutput(nn.Module):
    """Returns the output of a convolution beside that of the norm after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return y, self.norm(y)


def test_weights_and_bias_worked_out_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), set_norm(nn.BatchNorm2d(1), 3, 4, 10, -1))
    nn.init.constant_(model[0].weight, 2)
    nn.init.constant_(model[0].bias, 5)

    folded = fold_batch_norm(model, torch.rand(1, 1, 4, 6))

    assert folded[0].weight.item() == 2 * 10 / 2  # weight · gamma / sqrt(var)
    assert folded[0].bias.item() == (5 - 3) * 10 / 2 - 1
    assert norms(folded) == 0
    assert folded(torch.full((1, 1, 1, 1), 7.0)).item() == 79


def test_a_convolution_without_bias_gets_one():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), set_norm(nn.BatchNorm2d(1), 3, 1, 1, 0))
    assert fold_batch_norm(model, torch.rand(1, 1, 4, 6))[0].bias.item() == -3


def test_the_activation_inside_a_norm_stays():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), set_norm(NormAct(1), 3, 1, 1, 0))
    nn.init.ones_(model[0].weight)

    folded = fold_batch_norm(model, 10 * torch.rand(1, 1, 4, 6))

    assert norms(folded) == 0
    assert folded(torch.tensor([1.0, 5.0]).view(1, 1, 1, 2)).flatten().tolist() == [0, 2]


def test_the_original_is_not_changed():
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    model.train()
    before = copy.deepcopy(model.state_dict())

    folded = fold_batch_norm(model, torch.rand(2, 3, 8, 8))

    assert norms(model) == 1
    assert model.training
    assert model[1].training
    assert not any(module.training for module in folded.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("model", "left"), [(Twice(), 2), (Residual(), 1)])
def test_a_convolution_that_feeds_more_than_the_norm_is_left(model, left):
    images = torch.rand(1, 3, 8, 10)
    folded = fold_batch_norm(randomize(model), images)
    assert norms(folded) == left
    assert agree(model, folded, images)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), HiddenFactor(4)),
        nn.Sequential(Standardized(3, 4, 3), nn.BatchNorm2d(4)),
        EarlyOutput(),
    ],
)
def test_what_would_change_the_features_is_returned_unfolded(model, caplog):
    images = torch.rand(1, 3, 8, 10)
    folded = fold_batch_norm(randomize(model), images)
    assert norms(folded) == 1
    assert all(torch.equal(x, y) for x, y in zip(folded(images), model(images), strict=True))


def test_norms_after_something_else_or_of_the_batch_are_left():
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1),
        nn.BatchNorm2d(3, track_running_stats=False),
    )  # fmt: skip
    assert norms(fold_batch_norm(model, torch.rand(2, 3, 4, 4))) == 2


def test_a_norm_is_never_paired_with_a_later_convolution():
    """An activation's memory, and with it its id, may go on to a convolution after it."""
    layers = [nn.Conv2d(3, 3, 1)]
    for _ in range(20):
        layers += [nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)]
    model = nn.Sequential(*layers, nn.BatchNorm2d(3, track_running_stats=False))
    for _ in range(20):
        assert norms(fold_batch_norm(model, torch.rand(2, 3, 4, 4))) == 21


def test_a_model_without_norms_keeps_its_features():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(fold_batch_norm(model, images)(images), model(images))


def test_synchronised_and_nested_norms_and_low_precision():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)), NormAct(4))
    folded = fold_batch_norm(randomize(model).bfloat16(), torch.rand(1, 3, 8, 8).bfloat16())
    assert norms(folded) == 1
    assert {parameter.dtype for parameter in folded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "config",
    [
        {"type": "ResNet", "depth": 18},
        {"type": "TIMMBackbone", "model_name": "tf_efficientnet_lite0", "features_only": False},
    ],
)
def test_all_norms_of_a_real_backbone_are_folded(config):
    if config["type"] == "TIMMBackbone":
        pytest.importorskip("timm", reason="of the dependency group lite0")
    model = randomize(MODELS.build(config)).double()  # random depths multiply float32's rounding
    folded = fold_batch_norm(model, torch.rand(1, 3, 64, 96).double())
    assert norms(folded) == 0
    assert agree(model, folded, torch.rand(2, 3, 96, 64).double())


def test_malloc_is_tuned_where_it_is_glibcs(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not tune_malloc()


def test_classifier_of_the_zoo(tmp_path):
    """All norms of mmpretrain's own ResNet-18 config are folded, and its features stay."""
    config = zoo_config(tmp_path)
    torch.manual_seed(0)
    backbone = MODELS.build(config.model).backbone
    randomize(backbone)
    probe = torch.randn(2, 3, 96, 64)
    folded = fold_batch_norm(backbone, probe)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        (before,), (after,) = backbone(probe), folded(probe)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
