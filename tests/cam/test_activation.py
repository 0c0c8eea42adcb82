"""Class activation maps against values worked out by hand."""

import pytest
import torch

from dap.cam import class_activation_map

FEATURES = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, -1.0]]]])
WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 2.0], [10.0, -1.0]])


def test_values_by_hand():
    maps = class_activation_map(FEATURES, WEIGHT, torch.tensor([2]))
    assert maps.tolist() == [[[10.0, 19.0], [30.0, 41.0]]]
    maps = class_activation_map(FEATURES, WEIGHT, torch.tensor([1]), torch.tensor([9.0, 0.5, 9.0]))
    assert maps.tolist() == [[[0.5, 2.5], [0.5, -1.5]]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_and_features_of_any_integer_kind(dtype):
    features = FEATURES.expand(2, -1, -1, -1)
    maps = class_activation_map(features, WEIGHT, torch.tensor([1, 0], dtype=dtype))
    assert maps.tolist() == [[[0.0, 2.0], [0.0, -2.0]], [[1.0, 2.0], [3.0, 4.0]]]
    whole = class_activation_map(FEATURES.to(torch.int64), WEIGHT / 2, torch.tensor([0]))
    assert whole.tolist() == [[[0.5, 1.0], [1.5, 2.0]]]


def test_mean_of_the_map_is_the_logit_of_its_class():
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(5, 8, 4, 6, generator=generator)
    linear = torch.nn.Linear(8, 7)
    labels = torch.tensor([6, 0, 3, 3, 1])
    maps = class_activation_map(features, linear.weight, labels, linear.bias)
    logits = linear(features.mean(dim=(2, 3)))
    torch.testing.assert_close(maps.mean(dim=(1, 2)), logits[torch.arange(5), labels])


def test_many_classes_cost_the_memory_of_one(monkeypatch):
    """With 10**5 classes the maps of all would be 8 GB; only the labelled row is used."""
    features = torch.rand(1, 4, 100, 200)
    weight = torch.zeros(100_000, 4)
    weight[99_999] = 1
    maps = class_activation_map(features, weight, torch.tensor([99_999]))
    torch.testing.assert_close(maps, features.sum(dim=1))


def test_chunked_is_whole_and_inputs_stay():
    features, labels = torch.rand(6, 5, 3, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    weight = torch.rand(3, 5)
    before = features.clone()
    whole = class_activation_map(features, weight, labels)
    parts = [
        class_activation_map(features[i : i + 2], weight, labels[i : i + 2]) for i in (0, 2, 4)
    ]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert torch.equal(features, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(2, 3, 4)}, "features: "),
        ({"weight": torch.zeros(3, 5)}, r"weight: expected shape \(K, 2\)"),
        ({"labels": torch.tensor([3])}, r"labels: expected classes in \[0, 3\)"),
        ({"labels": torch.tensor([-1])}, "labels: "),
        ({"labels": torch.tensor([True])}, "labels: expected integers"),
        ({"labels": torch.tensor([0.0])}, "labels: expected integers"),
        ({"labels": torch.tensor([0, 1])}, "labels: "),
        ({"bias": torch.zeros(2)}, r"bias: expected shape \(3,\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"features": FEATURES, "weight": WEIGHT, "labels": torch.tensor([0]), **change}
    with pytest.raises(ValueError, match=message):
        class_activation_map(**arguments)
