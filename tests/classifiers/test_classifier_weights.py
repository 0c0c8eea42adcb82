"""A ResNet-18 of mmpretrain's model zoo gets its weights from files as people save them."""

import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from safetensors.torch import save_file

from dap.classifiers.weights import load_classifier_weights
from dap.pseudo_boxes import build_classifier

ZOO_CONFIG = "_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'"


@pytest.fixture(scope="module")
def built():
    """The classifier, and weights of its own that a freshly built one does not have."""
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(Config.fromstring(ZOO_CONFIG, ".py").model)
    generator = torch.Generator().manual_seed(3)
    weights = {}
    for name, value in model.state_dict().items():
        # A sixteenth is exact in half precision, too.
        numbers = torch.randint(1, 16, value.shape, generator=generator)
        weights[name] = numbers / 16 if value.is_floating_point() else numbers
    return model, weights


@pytest.fixture
def zoo_weights(built):
    return dict(built[1])


@pytest.fixture
def plain_weights(zoo_weights):
    """The same weights under the names of torchvision and timm."""
    return {
        name.removeprefix("backbone.").removeprefix("head."): v for name, v in zoo_weights.items()
    }


@pytest.fixture
def log():
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    handler = Keep()
    MMLogger.get_current_instance().addHandler(handler)
    yield lambda: "\n".join(records)
    MMLogger.get_current_instance().removeHandler(handler)


def below(prefix, weights):
    return {f"{prefix}{name}": value for name, value in weights.items()}


def renamed(weights, **parts):
    """Put other names in place of parts of names."""
    result = {}
    for name, value in weights.items():
        for part, other in parts.items():
            name = name.replace(f"{part}.", other)
        result[name] = value
    return result


@pytest.fixture
def load(built, tmp_path):
    """Save something, load it into the model whose weights are zero, and give the model's."""

    def save_and_load(content, name="x.pth"):
        if content is not None:
            torch.save(content, tmp_path / name)
        model = built[0]
        with torch.no_grad():
            for value in model.state_dict().values():
                value.zero_()
        load_classifier_weights(model, str(tmp_path / name), "zoo.py")
        return model.state_dict()

    return save_and_load


def assert_loaded(loaded, zoo_weights):
    wrong = [name for name, value in zoo_weights.items() if not torch.equal(loaded[name], value)]
    assert not wrong


PREFIXES = [
    "",
    "model.",
    "net.",
    "classifier.",
    "_model.",
    "module.model.",
    "_orig_mod.module.model._orig_mod.",
    "model.backbone.",
    "encoder.module.",
    "module.encoder_q.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_names_of_torchvision_below_any_prefix(load, zoo_weights, plain_weights, prefix):
    beside = {"criterion.weight": torch.ones(9), "metric.total": torch.tensor(0)}
    loaded = load({"state_dict": {**below(prefix, plain_weights), **beside}})
    assert_loaded(loaded, zoo_weights)


@pytest.mark.parametrize("prefix", ["", "model.", "module.net."])
def test_names_of_mmpretrain_below_any_prefix(load, zoo_weights, prefix):
    content = below(prefix, zoo_weights) | {"model.criterion.weight": torch.ones(9)}
    assert_loaded(load({"state_dict": content}), zoo_weights)


@pytest.mark.parametrize(
    "parts",
    [
        {"fc": "classifier."},
        {"fc": "linear.", "layer1": "layer1.module."},
        {"fc": "head.fc."},
        {"fc": "fc.1."},
        {"layer1": "layer1._checkpoint_wrapped_module.", "layer2": "layer2._fsdp_wrapped_module."},
    ],
)
def test_names_with_other_parts(load, zoo_weights, plain_weights, parts):
    assert_loaded(load(renamed(plain_weights, **parts)), zoo_weights)


def test_encoder_beside_its_linear_layer(load, zoo_weights, plain_weights):
    content = {
        name.replace("fc.", "top.") if name.startswith("fc.") else f"encoder.{name}": value
        for name, value in plain_weights.items()
    }
    assert_loaded(load({"model_state_dict": content, "loss": torch.tensor(0.4)}), zoo_weights)


def test_wrapped_backbone(load, zoo_weights):
    assert_loaded(load(renamed(zoo_weights, backbone="backbone.module.")), zoo_weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precision_is_converted(load, zoo_weights, dtype):
    content = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in zoo_weights.items()
    }
    loaded = load({"state_dict": content})
    assert_loaded(loaded, zoo_weights)
    assert loaded["head.fc.weight"].dtype == torch.float32


def test_safetensors_under_any_name(load, zoo_weights, plain_weights, tmp_path):
    save_file(plain_weights, tmp_path / "x.pth")
    assert_loaded(load(None), zoo_weights)


def test_counters_of_batch_norm_may_be_missing(load, zoo_weights, plain_weights):
    old = {name: v for name, v in plain_weights.items() if not name.endswith("batches_tracked")}
    loaded = load(old)
    assert len(old) == 102
    assert_loaded(
        loaded, {name: zoo_weights[name] for name in zoo_weights if "batches" not in name}
    )


def test_network_that_is_meant_for_use_is_taken(load, zoo_weights, plain_weights, log):
    other = {name: value + 1 for name, value in plain_weights.items()}
    trained_and_momentum = {**below("encoder_k.", other), **below("encoder_q.", plain_weights)}
    assert_loaded(load({"state_dict": below("module.", trained_and_momentum)}), zoo_weights)
    assert "backbone.conv1.weight is encoder_q.conv1.weight" in log()
    assert "122 weights are not used, such as encoder_k." in log()
    both = {**below("student.", other), **below("teacher.backbone.", plain_weights)}
    assert_loaded(load(both), zoo_weights)


def test_two_places_with_other_weights_are_refused(load, zoo_weights, plain_weights):
    other = {name: value + 1 for name, value in plain_weights.items()}
    with pytest.raises(ValueError, match=r"x\.pth holds .* below 'a\.' and, .* below 'b\.'"):
        load({**below("a.", plain_weights), **below("b.", other)})
    same = {**below("a.", plain_weights), **below("b.", plain_weights)}
    assert_loaded(load(same), zoo_weights)


def test_head_of_another_size_is_refused_with_both_shapes(load, zoo_weights, plain_weights):
    for content, names in ((plain_weights, "fc."), (zoo_weights, "head.fc.")):
        content |= {f"{names}weight": torch.ones(21, 512), f"{names}bias": torch.ones(21)}
        expected = r"head\.fc\.weight has shape \(21, 512\), .* zoo\.py \(1000, 512\)"
        with pytest.raises(ValueError, match=expected):
            load(content)


def test_missing_weights_are_counted(load, plain_weights):
    for name in ("fc.weight", "fc.bias"):
        del plain_weights[name]
    with pytest.raises(ValueError, match=r"2 of 102 weights are missing, such as head\.fc\.bias"):
        load(plain_weights)


def test_checkpoint_of_something_else_is_refused(load):
    with pytest.raises(ValueError, match=r"not of the classifier in zoo\.py: 102 of 102"):
        load({"tokens.weight": torch.ones(3, 3)})


@pytest.mark.parametrize("name", ["layer1.2.conv1.weight", "layer1.0.se.fc.bias", "fc.2.weight"])
def test_larger_network_is_refused(load, zoo_weights, plain_weights, name):
    """ResNet-34, SE-ResNet-18 and a head of two layers hold all names of ResNet-18."""
    with pytest.raises(ValueError, match=rf"larger network .* 1 of .* such as {name}"):
        load(plain_weights | {name: torch.ones(2, 2)})
    if name.startswith("layer"):
        with pytest.raises(ValueError, match=rf"such as backbone\.{name}"):
            load(zoo_weights | {f"backbone.{name}": torch.ones(2, 2)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["layer4.1.conv2.weight", "bn1.running_var", "fc.bias"])
def test_value_that_is_not_finite_is_refused_wherever_it_is(load, plain_weights, name, value):
    plain_weights[name] = plain_weights[name].clone()
    plain_weights[name].view(-1)[-1] = value
    with pytest.raises(ValueError, match=rf"x\.pth: {name} holds .* one of 1 such"):
        load(plain_weights)


def test_values_that_the_classifier_does_not_use_may_be_anything(load, zoo_weights, plain_weights):
    plain_weights["projection.weight"] = torch.full((3, 3), float("nan"))
    assert_loaded(load(plain_weights), zoo_weights)


def test_whole_numbers_are_refused(load, plain_weights):
    plain_weights["conv1.weight"] = plain_weights["conv1.weight"].to(torch.int16)
    with pytest.raises(ValueError, match=r"backbone\.conv1\.weight is of torch\.int16"):
        load(plain_weights)


def test_an_error_leaves_the_model_as_it_was(load, built, plain_weights):
    plain_weights["fc.bias"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"head\.fc\.bias has shape"):
        load(plain_weights)
    assert not any(value.any() for value in built[0].state_dict().values())


def test_names_of_timm(tmp_path):
    """The network without its classifier is the backbone, the classifier is the head."""
    timm = pytest.importorskip("timm", reason="of the dependency group lite0")
    network = timm.create_model("test_efficientnet", num_classes=7)
    torch.save({"state_dict_ema": network.state_dict()}, tmp_path / "timm.pth")
    config = Config.fromstring(ZOO_CONFIG, ".py")
    config.model.backbone = {"type": "TIMMBackbone", "model_name": "test_efficientnet"}
    config.model.head.update(num_classes=7, in_channels=network.num_features, topk=(1,))

    model, _ = build_classifier(config, str(tmp_path / "timm.pth"))

    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), network.eval()(images))
