"""Maps by gradient: right by hand, for any number of labels, whatever batch and mode."""

import json

import numpy as np
import pytest
import torch
from networks import Wrapped, classifier, convnext, randomized, vit
from torch import nn

from dap.classifiers import (
    Layout,
    LogitNetwork,
    Tap,
    Target,
    find_target,
    gradient_maps,
    shared_copy,
)
from dap.pseudo_boxes import CamClassifier, ClassFolders, PseudoBoxSettings, generate_pseudo_boxes
from dap.pseudo_boxes.classifier import evaluating
from dap.testing import write_image

SETTINGS = PseudoBoxSettings(short_sides=(64, 96))


class Squares(nn.Module):
    """The mean of the squares of a feature map, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2d(3, 2, 8, 8, bias=False), nn.ReLU(inplace=True))
        self.after = nn.ReLU(inplace=True)
        self.fc = nn.Linear(2, 3, bias=False)

    def forward(self, images):
        features = self.after(self.stage(images))
        return self.fc(features.square().mean(dim=(2, 3)))


def picture(height=70, width=90, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def test_grad_cam_by_hand():
    """The gradient of mean(w t²) by t is 2 w t / n, so the weights are 2 w mean(t) / n."""
    network = randomized(Squares())
    images = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    tap = Tap(shared_copy(network), "stage")
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    maps, _, logits = gradient_maps(tap, Target("stage", Layout("NCHW")), images, labels, 1)
    with torch.no_grad():
        features = network.stage(images)
        rows = [(0, 0), (0, 2), (1, 1)]
        for row, (image, label) in enumerate(rows):
            weight = 2 * network.fc.weight[label] * features[image].mean(dim=(1, 2)) / 8
            expected = torch.einsum("c,chw->hw", weight, features[image])
            torch.testing.assert_close(maps[0, row], expected)
        torch.testing.assert_close(logits, network(images))


@pytest.mark.parametrize(("rule", "factor"), [("paper", 24), ("extent", 1)])
def test_behind_pooling_and_a_linear_layer_it_is_the_exact_map(rule, factor):
    """Up to one factor, the number of cells, which the rule 'extent' normalises away."""
    network = randomized(
        Wrapped(nn.Sequential(nn.Sequential(nn.Conv2d(3, 6, 16, 16), nn.GELU()),
                              nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)))
    )  # fmt: skip
    exact, by_gradient = CamClassifier(network), CamClassifier(network, "gradient")
    assert (exact.map_method, by_gradient.map_method) == ("exact", "gradient")
    settings = PseudoBoxSettings(short_sides=(64,), rule=rule)
    with evaluating(network):
        one, other = (
            found.maps(picture(64, 96), torch.tensor([3, 1]), settings).maps
            for found in (exact, by_gradient)
        )
    torch.testing.assert_close(factor * other, one, rtol=1e-4, atol=1e-5)


def test_target_of_a_class_token_is_the_first_norm_of_the_last_block():
    model = vit()
    found = CamClassifier(model, "grad-cam")
    assert found.map_method == "gradient"
    assert found.feature_map == "backbone.layers.1.ln1"
    assert found.input_size is None
    assert "Grad-CAM at backbone.layers.1.ln1, because" in found.map_description
    target = find_target(LogitNetwork(model), torch.randn(1, 3, 64, 64))
    assert target.layout == Layout("NLC", 1)


BOTH = pytest.mark.parametrize("method", ["ag-cam", "grad-cam"])


@BOTH
def test_several_labels_batches_and_views_are_those_of_each_alone(method):
    found = CamClassifier(vit(), method)
    pictures = [picture(seed=seed) for seed in range(3)]
    labels = [torch.tensor([4, 0]), torch.tensor([], dtype=torch.long), torch.tensor([2])]
    view_maps = found.view_maps(None)
    with evaluating(found.model), torch.inference_mode():
        views = torch.stack([p[:, :64, :64] for p in pictures]).float()
        views = found.normalize(torch.cat([views, views.flip(-1)]))
        maps, _, logits = view_maps(views, labels, 2)
        assert maps.shape == (2, 3, 4, 4)
        for row, (image, label) in enumerate([(0, 4), (0, 0), (2, 2)]):
            for view in range(2):
                own = views[[image + 3 * view]]
                alone, _, _ = view_maps(own, [torch.tensor([label])], 1)
                torch.testing.assert_close(maps[view, row], alone[0, 0], rtol=1e-4, atol=1e-6)
        expected = found.model(views).unflatten(0, (2, 3)).sum(0)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@BOTH
def test_mirror_and_mode_and_parameters_stay(method):
    found = CamClassifier(vit(), method)
    before = {name: value.clone() for name, value in found.model.state_dict().items()}
    label = torch.tensor([1])
    with evaluating(found.model):
        maps = found.maps(picture(), label, SETTINGS).maps
        mirrored = found.maps(picture().flip(-1), label, SETTINGS).maps
    # Rows and columns of positions differ, but both views are averaged either way. A width of 90
    # pixels is padded at the other end, so only an image without padding has the mirrored map.
    assert maps.shape == mirrored.shape
    square = picture(96, 96)
    with evaluating(found.model):
        maps = found.maps(square, label, SETTINGS).maps
        mirrored = found.maps(square.flip(-1), label, SETTINGS).maps
    torch.testing.assert_close(mirrored.flip(-1), maps, rtol=1e-3, atol=1e-6)
    assert not any(module._forward_hooks for module in found.model.modules())
    assert all(value.requires_grad and value.grad is None for value in found.model.parameters())
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_method_may_be_asked_for_and_must_be_possible():
    with pytest.raises(ValueError, match="no exact class activation map, because the input of"):
        CamClassifier(vit(), "exact")
    with pytest.raises(ValueError, match=r"expected one of .*, found 'best'"):
        PseudoBoxSettings(map_method="best")
    found = CamClassifier(convnext(), "gradient")
    assert found.reason == "maps by gradient are asked for (map_method)"
    assert found.feature_map == "backbone.stages.3"


@BOTH
def test_label_out_of_range_is_refused(method):
    found = CamClassifier(vit(), method)
    with pytest.raises(ValueError, match=r"classes in \[0, 5\).*found 5 to 5"):
        found.view_maps(None)(torch.randn(1, 3, 64, 64), [torch.tensor([5])], 1)


class TestOneSize:
    """A BEiT with relative positions takes images of 64 x 64 px alone."""

    def model(self):
        backbone = {
            "type": "BEiTViT", "img_size": 64, "patch_size": 16, "out_type": "cls_token",
            "arch": {"embed_dims": 12, "num_layers": 1, "num_heads": 2,
                     "feedforward_channels": 24},
        }  # fmt: skip
        head = {"type": "VisionTransformerClsHead", "num_classes": 5, "in_channels": 12}
        return classifier(backbone, head=head)

    def test_views_are_squashed_to_it(self):
        found = CamClassifier(self.model())
        assert found.input_size == (64, 64)
        assert [tuple(view) for view in found.views(SETTINGS)] == [
            ((64, 64), False), ((64, 64), True)
        ]  # fmt: skip
        with evaluating(found.model):
            cam = found.maps(picture(70, 90), torch.tensor([0]), SETTINGS)
        assert cam.maps.shape == (1, 4, 4)
        assert cam.cell_size == (70 / 4, 90 / 4)

    def test_rule_with_square_cells_is_refused(self):
        with pytest.raises(ValueError, match=r"only 64 x 64 px\. Use the rule 'extent' or 'paper'"):
            CamClassifier(self.model()).views(PseudoBoxSettings(rule="release"))

    def test_run_says_so_and_writes_boxes_within_the_image(self, tmp_path, log):
        for number, size in enumerate([(60, 150), (150, 60)]):
            image = picture(*size, seed=number).permute(1, 2, 0).numpy()
            write_image(tmp_path / "images" / "a" / f"{number}.png", np.ascontiguousarray(image))
        folders = ClassFolders(str(tmp_path / "images"), 5, ["a", "b", "c", "d", "e"])
        out = tmp_path / "out"
        summary = generate_pseudo_boxes(self.model(), folders, out, SETTINGS)
        assert "takes only images of 64 x 64 px" in log()
        assert summary["classifier"]["map_method"] == "gradient"
        assert summary["classifier"]["maps"].startswith("AG-CAM over the attention of 1 blocks")
        coco = json.loads((out / "annotations.json").read_text())
        sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
        assert len(coco["annotations"]) >= 2
        for entry in coco["annotations"]:
            x, y, width, height = entry["bbox"]
            image_width, image_height = sizes[entry["image_id"]]
            assert 0 <= x < x + width <= image_width + 0.01
            assert 0 <= y < y + height <= image_height + 0.01


def test_patches_of_14_pixels_are_padded_to_14():
    found = CamClassifier(vit(img_size=224, patch_size=14))
    assert found.pad_multiple == 14
    with evaluating(found.model):
        cam = found.maps(picture(70, 100), torch.tensor([0]), PseudoBoxSettings(short_sides=(70,)))
    # 100 pixels are padded to 112, 8 cells, all of which show some of the image.
    assert cam.maps.shape == (1, 5, 8)
    assert cam.cell_size == (14, 14)
