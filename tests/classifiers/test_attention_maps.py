"""AG-CAM: right by hand, the same for every way to compute attention, nothing left behind."""

import pytest
import torch
import torch.nn.functional as F
from networks import Wrapped, convnext, randomized, vit
from torch import nn

from dap.classifiers import Layout, LogitNetwork, count_blocks, find_target
from dap.classifiers.attention import RecordedAttention
from dap.pseudo_boxes import CamClassifier
from dap.pseudo_boxes.classifier import evaluating

IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
LABELS = [torch.tensor([0, 2]), torch.tensor([1])]
ROWS = [(0, 0), (0, 2), (1, 1)]


class Block(nn.Module):
    """One head of attention over normed tokens, its scores and weights kept."""

    def __init__(self, fused):
        super().__init__()
        self.norm, self.qkv, self.fused = nn.LayerNorm(4), nn.Linear(4, 12), fused

    def forward(self, tokens):
        query, key, value = self.qkv(self.norm(tokens))[:, None].chunk(3, dim=-1)
        self.scores, self.value = query @ key.transpose(-2, -1) / 2, value
        if self.fused:
            return tokens + F.scaled_dot_product_attention(query, key, value)[:, 0]
        self.weights = self.scores.softmax(dim=-1)
        return tokens + (self.weights @ value)[:, 0]


class Transformer(nn.Module):
    """Patches of 8 pixels behind a class token; one linear layer reads the token."""

    def __init__(self, blocks, fused):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.blocks = nn.Sequential(*(Block(fused) for _ in range(blocks)))
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1)
        return self.fc(self.blocks(tokens)[:, 0])


def network(blocks, fused):
    torch.manual_seed(0)
    return randomized(Transformer(blocks, fused))


def maps_of(model, images=IMAGES, labels=LABELS):
    found = CamClassifier(Wrapped(model), "ag-cam")
    with evaluating(found.model), torch.inference_mode():
        return found.view_maps(None)(images, labels, 1)


@pytest.mark.parametrize("fused", [True, False])
def test_one_block_by_hand(fused):
    """The class token reads sum A_i v_i, so the gradient of a logit by A_i is w·v_i."""
    model = network(1, fused)
    maps, features, logits = maps_of(model)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(IMAGES))
        block = model.blocks[0]
        for row, (image, label) in enumerate(ROWS):
            read = torch.sigmoid(block.scores[image, 0, 0, 1:])
            by_weight = block.value[image, 0, 1:] @ model.fc.weight[label]
            expected = (read * by_weight.clamp(min=0)).reshape(4, 6)
            assert expected.gt(0).any()
            torch.testing.assert_close(maps[0, row], expected)
    assert features.shape == (1, 2, 4, 4, 6)


@pytest.mark.parametrize("fused", [True, False])
def test_blocks_are_summed_with_the_gradients_of_the_whole_network(fused):
    reference = network(3, fused=False)
    maps, _, _ = maps_of(network(3, fused))
    for row, (image, label) in enumerate(ROWS):
        logit = reference(IMAGES)[image, label]
        expected = torch.zeros(24)
        for block in reference.blocks:
            (grad,) = torch.autograd.grad(logit, block.weights, retain_graph=True)
            read = torch.sigmoid(block.scores.detach()[image, 0, 0, 1:])
            expected += read * grad[image, 0, 0, 1:].clamp(min=0)
        torch.testing.assert_close(maps[0, row], expected.reshape(4, 6))


def test_it_is_chosen_by_itself_and_named():
    found = CamClassifier(vit())
    assert (found.map_method, found.feature_map) == ("gradient", "backbone.layers.1.ln1")
    assert found.map_description.startswith(
        "AG-CAM over the attention of 2 blocks to backbone.layers.1.ln1, because the input of"
    )
    other = CamClassifier(vit(), "grad-cam")
    assert other.map_description.startswith("Grad-CAM at backbone.layers.1.ln1, because")
    assert found.weights_sha256() != other.weights_sha256()


def test_without_attention_of_a_class_token_it_is_grad_cam():
    model = convnext()
    assert CamClassifier(model, "gradient").map_description.startswith("Grad-CAM at")
    with pytest.raises(ValueError, match=r"no map by attention .* no attention from a class token"):
        CamClassifier(model, "ag-cam")
    whole = LogitNetwork(Wrapped(network(2, True)))
    target = find_target(whole, IMAGES)
    assert target.layout == Layout("NLC", 1)
    assert count_blocks(whole, target, IMAGES) == 2
    assert count_blocks(whole, target._replace(layout=Layout("NLC", 0)), IMAGES) == 0


@pytest.mark.parametrize("mask", ["added", "boolean"])
def test_fused_attention_with_a_mask_and_a_scale_is_the_same(mask):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 5, 4, generator=generator)
    bias = torch.randn(3, 5, 5, generator=generator)
    given = bias if mask == "added" else (bias > -1) | torch.eye(5, dtype=torch.bool)
    with torch.no_grad(), RecordedAttention(2) as record:
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=given, scale=0.3)
        assert output.requires_grad
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=given, scale=0.3)
    torch.testing.assert_close(output.detach(), expected)
    added = bias if mask == "added" else torch.zeros_like(bias).masked_fill(~given, -torch.inf)
    scores = (query @ key.transpose(-2, -1) * 0.3 + added)[:, :, :1]
    torch.testing.assert_close(record.blocks[0].scores, scores)
    torch.testing.assert_close(record.blocks[0].weights.detach(), scores.softmax(dim=-1))


def test_other_softmaxes_are_left_alone():
    values = torch.randn(2, 3, 4, 4)
    with torch.no_grad(), RecordedAttention(2) as record:
        torch.softmax(values, 1)
        F.softmax(values[0], dim=-1)
        values.reshape(6, 1, 4, 4).softmax(-1)  # of windows, say
        assert F.scaled_dot_product_attention(values, values, values, is_causal=True).shape
    assert not record.blocks


def test_nothing_is_left_behind_after_an_error():
    found = CamClassifier(vit())
    tap = found._method._tap.network
    head = tap.classifier.head
    head.forward = lambda _: (_ for _ in ()).throw(RuntimeError("in the head"))
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="in the head"):
            found.view_maps(None)(torch.randn(1, 3, 64, 64), [torch.tensor([1])], 1)
        assert not torch.is_grad_enabled()
        with RecordedAttention(7) as record:
            torch.zeros(1, 2, 3, 3).softmax(dim=-1)
        assert not record.blocks
        assert not torch.zeros(1, 2, 3, 3).softmax(dim=-1).requires_grad


@pytest.mark.parametrize("name", ["test_vit", "beit_base_patch16_224"])
def test_transformer_of_timm_gives_the_same_with_and_without_fused_attention(name):
    timm = pytest.importorskip("timm", reason="of the dependency group lite0")
    small = {} if name == "test_vit" else {"depth": 2, "embed_dim": 24, "num_heads": 2,
                                           "global_pool": "token"}  # fmt: skip
    torch.manual_seed(0)
    model = Wrapped(randomized(timm.create_model(name, num_classes=4, **small)))
    side = model.model.patch_embed.img_size[0]
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    computed = []
    for fused in (True, False):
        for block in model.model.blocks:
            block.attn.fused_attn = fused
        found = CamClassifier(model)
        assert f"AG-CAM over the attention of {len(model.model.blocks)} blocks" in (
            found.map_description
        )
        computed.append(found.view_maps(None)(images, [torch.tensor([1])], 1).maps)
    assert computed[0].gt(0).any()
    torch.testing.assert_close(*computed, rtol=1e-3, atol=1e-6)
