"""Maps of classifiers with a norm between average pooling and the linear layer."""

import threading

import numpy as np
import pytest
import torch
from networks import Wrapped, classifier, convnext, randomized, vit
from torch import nn

from dap.classifiers import Layout
from dap.classifiers.layout import token_grid
from dap.classifiers.readout import deviation
from dap.pseudo_boxes import CamClassifier, PseudoBoxSettings
from dap.pseudo_boxes.classifier import evaluating


def images(*size, seed=0):
    return 255 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed)).double()


def beit():
    backbone = {
        "type": "BEiTViT", "img_size": 224, "patch_size": 32, "out_type": "avg_featmap",
        "final_norm": False,
        "arch": {"embed_dims": 12, "num_layers": 1, "num_heads": 2, "feedforward_channels": 24},
    }  # fmt: skip
    return classifier(backbone)


def batch_norm_head():
    """Pooling, BatchNorm, linear layer."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.BatchNorm1d(8), nn.Linear(8, 5),
    )  # fmt: skip
    return randomized(Wrapped(network))


def timm_network(name, **arguments):
    timm = pytest.importorskip("timm", reason="of the dependency group lite0")
    return randomized(Wrapped(timm.create_model(name, num_classes=5, **arguments)))


NETWORKS = {
    "ConvNeXt": convnext,
    "ViT": lambda: vit("avg_featmap"),
    "BEiT": beit,
    "BatchNorm": batch_norm_head,
    "timm ConvNeXt": lambda: timm_network("test_convnext"),
    "timm ViT": lambda: timm_network("test_vit", global_pool="avg", dynamic_img_size=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_logit_is_the_mean_of_the_map_up_to_a_constant(name):
    """In float64, for all classes, to the last digits."""
    model = NETWORKS[name]().double()
    found = CamClassifier(model)
    assert (found.map_method, found.reason) == ("exact", "")
    size = found.input_size or (96, 160)
    normalized = found.normalize(images(*size))
    with torch.no_grad():
        features = found.features(normalized)
        maps = torch.einsum("nchw,kc->nkhw", features, found.weight)
        network = found.model.model if hasattr(model, "model") else found.model
        logits = network(normalized)
    assert maps.shape[-1] > 1
    own = maps.mean(dim=(2, 3)) + found.bias
    np.testing.assert_allclose(own, logits, atol=2e-14 * float(logits.abs().max()))


def test_layer_norm_by_hand():
    """Two channels, two cells: t = (1, 3), (3, 9), mean (2, 6), deviation 2; γ = (1, 2), β = 1.

    With w = (3, 1), γw = (3, 2), less its mean 2.5: (0.5, -0.5). Maps -1 and -3, over 2; the
    logit 3(-1 + 1) + 1(2 + 1) = 3 is their mean -1 and w·β = 4.
    """
    norm, linear = nn.LayerNorm(2, eps=0.0), nn.Linear(2, 1, bias=False)
    norm.weight.data = torch.tensor([1.0, 2.0])
    norm.bias.data = torch.ones(2)
    linear.weight.data = torch.tensor([[3.0, 1.0]])
    features = torch.tensor([1.0, 3.0, 3.0, 9.0]).view(1, 2, 1, 2)
    assert deviation(features, 0.0).item() == 2
    own = torch.tensor([0.5, -0.5])
    maps = torch.einsum("nchw,c->nhw", features, own) / 2
    assert maps.flatten().tolist() == [-0.5, -1.5]
    assert linear(norm(features.mean(dim=(2, 3)))).item() == pytest.approx(maps.mean() + 4)
    assert linear(norm(features.mean(dim=(2, 3)))).item() == pytest.approx(3)


def test_pooled_before_the_norm_is_not_normed_before_the_pooling():
    """The two variants of ConvNeXt have other maps; each is found for what it is."""
    after = convnext()
    before = convnext({"type": "GlobalAveragePooling"}, gap_before_final_norm=False)
    assert CamClassifier(after).feature_map.endswith("then pooling and LayerNorm")
    assert CamClassifier(before).feature_map == "backbone"


@pytest.mark.parametrize("network", ["ConvNeXt", "ViT"])
def test_batches_and_fast_forward_give_the_same_maps(network):
    """As the maps of each image alone."""
    found = CamClassifier(NETWORKS[network]().float())
    pictures = [torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8) for _ in range(2)]
    settings = PseudoBoxSettings(short_sides=(64, 96))
    with evaluating(found.model):
        alone = [found.maps(picture, torch.tensor([1, 3]), settings).maps for picture in pictures]
        found.speed_up()
        for picture, expected in zip(pictures, alone, strict=True):
            maps = found.maps(picture, torch.tensor([1, 3]), settings).maps
            torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)
    assert not any(module._forward_hooks for module in found.model.modules())


class FixedWindow(nn.Module):
    """Pools 7 x 7 cells, whatever the size of its input; counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, features):
        self.calls += 1
        return nn.functional.avg_pool2d(features, 7).flatten(1)


def test_layers_after_the_feature_map_are_not_run():
    """They cost no time, and may reject small views."""
    network = nn.Sequential(nn.Conv2d(3, 8, 32, 32), FixedWindow(), nn.Linear(8, 5))
    found = CamClassifier(randomized(Wrapped(network)))
    assert (found.map_method, found.input_size) == ("exact", None)
    called = network[1].calls
    with evaluating(found.model):
        settings = PseudoBoxSettings(short_sides=(96,))
        picture = torch.randint(0, 256, (3, 96, 160), dtype=torch.uint8)
        maps = found.maps(picture, torch.tensor([1]), settings).maps
    assert maps.shape == (1, 3, 5)
    assert network[1].calls == called


class ChangesFeatures(nn.Module):
    """Clamps its feature map in place, without a module for it."""

    def __init__(self):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 8, 32, 32), nn.Linear(8, 5)

    def forward(self, images):
        features = self.stem(images)
        features.clamp_(max=1)
        return self.fc(features.mean(dim=(2, 3)))


def test_layers_that_change_the_feature_map_are_run():
    """Also where the probe image does not show it: random pixels give small features."""
    network = ChangesFeatures()
    model = randomized(Wrapped(network))
    network.stem.weight.data.fill_(1 / 3072)
    found = CamClassifier(model)
    assert (found.map_method, found.feature_map) == ("exact", "stem")
    white = found.normalize(torch.full((1, 3, 64, 64), 255.0))
    assert network.stem(white).min() > 1
    with torch.no_grad():
        own = found.features(white).mean(dim=(2, 3)) @ found.weight.T + found.bias
        torch.testing.assert_close(own, network(white))


def test_classifier_may_be_made_in_inference_mode():
    with torch.inference_mode():
        assert CamClassifier(batch_norm_head()).map_method == "exact"


class LastStage(nn.Conv2d):
    """Returns a tuple, as backbones do."""

    def forward(self, images):
        return (super().forward(images),)


def test_plain_networks_with_patches_of_14_pixels_are_padded_to_14():
    """A backbone of mmpretrain, average pooling and one linear layer."""
    model = classifier({"type": "ResNet", "depth": 18, "base_channels": 2, "stem_channels": 2},
                       {"type": "GlobalAveragePooling"}, channels=16)  # fmt: skip
    model.backbone = LastStage(3, 16, 14, 14)
    found = CamClassifier(model)
    assert (found.feature_map, found.pad_multiple) == ("backbone", 14)


def test_classifier_that_cannot_be_copied_is_named():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    network.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be copied \(TypeError: .*lock.*copy\.deepcopy"):
        CamClassifier(randomized(Wrapped(network)))


def test_normalised_maps_are_those_of_the_mirror():
    """A mirrored picture has the mirrored map: views are flipped back."""
    found = CamClassifier(convnext())
    picture = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    settings = PseudoBoxSettings(short_sides=(64,))
    label = torch.tensor([2])
    with evaluating(found.model):
        maps = found.maps(picture, label, settings).maps
        mirrored = found.maps(picture.flip(-1), label, settings).maps
    torch.testing.assert_close(mirrored.flip(-1), maps, rtol=1e-4, atol=1e-5)


def test_weights_and_method_are_the_identity():
    one, other = CamClassifier(vit("avg_featmap")), CamClassifier(vit("avg_featmap"), "gradient")
    assert one.weights_sha256() != other.weights_sha256()
    assert one.weights_sha256() == CamClassifier(vit("avg_featmap")).weights_sha256()


@pytest.mark.parametrize(
    ("count", "size_hw", "grid"),
    [(196, (224, 224), (14, 14)), (8, (32, 64), (2, 4)), (8, (64, 32), (4, 2)),
     (197, (224, 224), None), (6, (32, 64), None)],
)  # fmt: skip
def test_tokens_form_a_grid_of_squares(count, size_hw, grid):
    assert token_grid(count, size_hw) == grid


def test_tokens_lie_in_rows():
    """Token 1 + 4 y + x of an image of 32 x 64 is cell (y, x)."""
    tokens = torch.arange(9.0).view(1, 9, 1)
    cells = Layout("NLC", 1).as_nchw(tokens, (32, 64))
    assert cells[0, 0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    with pytest.raises(ValueError, match="9 tokens form no grid over an image of 32 x 64 px"):
        Layout("NLC").as_nchw(tokens, (32, 64))
