"""Step 2 builds a classifier as MMEngine's Runner does: weights and normalisation, per config."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from dap.pseudo_boxes.classifier import CamClassifier
from dap.pseudo_boxes.from_config import build_classifier

ZOO = Path(mmpretrain.__file__).parent / ".mim" / "configs"
OWN = Path(__file__).parents[2] / "configs" / "pseudo_boxes"

# Per family of mmpretrain's config folder the classifier with the fewest parameters, not "deploy".
SMALLEST = {
    "barlowtwins": "benchmarks/resnet50_8xb32-linear-coslr-100e_in1k",
    "beit": "benchmarks/beit-base-p16_8xb128-coslr-100e_in1k",
    "beitv2": "benchmarks/beit-base-p16_8xb128-coslr-100e_in1k",
    "byol": "benchmarks/resnet50_8xb512-linear-coslr-90e_in1k",
    "cae": "benchmarks/beit-base-p16_8xb128-coslr-100e_in1k",
    "clip": "vit-base-p16_pt-64xb64_in1k-384px",
    "conformer": "conformer-tiny-p16_8xb128_in1k",
    "convmixer": "convmixer-768-32_10xb64_in1k",
    "convnext": "convnext-tiny_32xb128_in1k-384px",
    "convnext_v2": "convnext-v2-atto_32xb32_in1k",
    "cspnet": "cspresnext50_8xb32_in1k",
    "csra": "resnet101-csra_1xb16_voc07-448px",
    "davit": "davit-tiny_4xb256_in1k",
    "deit": "deit-tiny_4xb256_in1k",
    "deit3": "deit3-small-p16_64xb64_in1k",
    "densecl": "benchmarks/resnet50_8xb32-linear-steplr-100e_in1k",
    "densenet": "densenet121_4xb256_in1k",
    "edgenext": "edgenext-xxsmall_8xb256_in1k",
    "efficientformer": "efficientformer-l1_8xb128_in1k",
    "efficientnet": "efficientnet-b0_8xb32-01norm_in1k",
    "efficientnet_v2": "efficientnetv2-b0_8xb32_in1k",
    "eva": "benchmarks/vit-base-p16_8xb128-coslr-100e_in1k",
    "eva02": "eva02-tiny-p14_in1k",
    "hivit": "hivit-tiny-p16_16xb64_in1k",
    "hornet": "hornet-tiny_8xb128_in1k",
    "hrnet": "hrnet-w18_4xb32_in1k",
    "inception_v3": "inception-v3_8xb32_in1k",
    "lenet": "lenet5_mnist",
    "levit": "levit-128s_8xb256_in1k",
    "mae": "benchmarks/vit-base-p16_8xb128-coslr-100e_in1k",
    "maskfeat": "benchmarks/vit-base-p16_8xb256-coslr-100e_in1k",
    "mff": "benchmarks/vit-base-p16_8xb128-coslr-100e_in1k",
    "milan": "benchmarks/vit-base-p16_8xb128-coslr-100e_in1k",
    "mixmim": "benchmarks/mixmim-base_8xb128-coslr-100e_in1k",
    "mlp_mixer": "mlp-mixer-base-p16_64xb64_in1k",
    "mobilenet_v2": "mobilenet-v2_8xb32_in1k",
    "mobilenet_v3": "mobilenet-v3-small-050_8xb128_in1k",
    "mobileone": "mobileone-s1_8xb32_in1k",
    "mobilevit": "mobilevit-xxsmall_8xb128_in1k",
    "mocov2": "benchmarks/resnet50_8xb32-linear-steplr-100e_in1k",
    "mocov3": "benchmarks/vit-small-p16_8xb128-linear-coslr-90e_in1k",
    "mvit": "mvitv2-tiny_8xb256_in1k",
    "poolformer": "poolformer-s12_32xb128_in1k",
    "regnet": "regnetx-400mf_8xb128_in1k",
    "replknet": "replknet-31L_32xb64_in1k-384px",
    "repmlp": "repmlp-base_8xb64_in1k",
    "repvgg": "repvgg-A0_8xb32_in1k",
    "res2net": "res2net50-w14-s8_8xb32_in1k",
    "resnest": "resnest50_32xb64_in1k",
    "resnet": "resnet18_8xb16_cifar10",
    "resnext": "resnext50-32x4d_8xb32_in1k",
    "revvit": "revvit-small_8xb256_in1k",
    "riformer": "riformer-s12_8xb128_in1k-384px",
    "seresnet": "seresnext50-32x4d_8xb32_in1k",
    "shufflenet_v1": "shufflenet-v1-1x_16xb64_in1k",
    "shufflenet_v2": "shufflenet-v2-1x_16xb64_in1k",
    "simclr": "benchmarks/resnet50_8xb512-linear-coslr-90e_in1k",
    "simmim": "benchmarks/swin-base-w6_8xb256-coslr-100e_in1k-192px",
    "simsiam": "benchmarks/resnet50_8xb512-linear-coslr-90e_in1k",
    "spark": "benchmarks/resnet50_8xb256-coslr-300e_in1k",
    "swav": "benchmarks/resnet50_8xb512-linear-coslr-90e_in1k",
    "swin_transformer": "swin-tiny_16xb64_in1k",
    "swin_transformer_v2": "swinv2-tiny-w16_16xb64_in1k-256px",
    "t2t_vit": "t2t-vit-t-14_8xb64_in1k",
    "tinyvit": "tinyvit-5m-distill_8xb256_in1k",
    "tnt": "tnt-s-p16_16xb64_in1k",
    "twins": "twins-svt-small_8xb128_in1k",
    "van": "van-tiny_8xb128_in1k",
    "vgg": "vgg11_8xb32_in1k",
    "vig": "vig-tiny_8xb128_in1k",
    "vision_transformer": "vit-base-p16_32xb128-mae_in1k",
    "wrn": "wide-resnet50_8xb32_in1k",
    "xcit": "xcit-nano-12-p8_8xb128_in1k-384px",
}
# Families without a classifier, and what they are. No family is left out for want of a package.
WITHOUT_CLASSIFIER = {
    "arcface": "retrieval",
    "blip": "language",
    "blip2": "language",
    "chinese_clip": "language",
    "dinov2": "backbones without a head",
    "flamingo": "language",
    "glip": "backbones without a head",
    "itpn": "self-supervised",
    "llava": "language",
    "minigpt4": "language",
    "ofa": "language",
    "otter": "language",
    "sam": "backbones without a head",
}


def zoo_config(path: Path) -> Config:
    config = Config.fromfile(path)
    assert config.filename == str(path)
    return config


def is_classifier(config: Config) -> bool:
    model = config.get("model") or {}
    return model.get("type") == "ImageClassifier" and model.get("head") is not None


def test_table_names_every_family() -> None:
    families = {path.name for path in ZOO.iterdir() if path.is_dir()} - {"_base_", "__pycache__"}
    assert not SMALLEST.keys() & WITHOUT_CLASSIFIER.keys()
    assert families == SMALLEST.keys() | WITHOUT_CLASSIFIER.keys()
    for family in WITHOUT_CLASSIFIER:
        for path in (ZOO / family).rglob("*.py"):
            assert not is_classifier(Config.fromfile(path)), path


def runner_of(config: Config, work_dir: Path) -> Runner:
    """A Runner with all of the config that decides its model."""
    return Runner(
        model=config.model,
        data_preprocessor=config.get("data_preprocessor"),
        default_scope=config.default_scope,
        work_dir=str(work_dir),
        log_level="ERROR",
    )


@pytest.fixture
def no_initialization(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave new weights as they come from the allocator: all of them are replaced."""
    for name, _ in inspect.getmembers(nn.init, inspect.isfunction):
        if name.endswith("_") and not name.startswith("_"):
            monkeypatch.setattr(nn.init, name, lambda tensor, *args, **settings: tensor)


def patterns(model: nn.Module) -> dict[str, Tensor]:
    """Known weights for a model, each tensor and each place in a row of it with its own values.

    The rows of a tensor share their memory, so that to make, save and read them takes no time.
    """
    state = {}
    for number, (name, value) in enumerate(model.state_dict().items()):
        row = torch.arange(max(1, value[:1].numel() if value.ndim else 1)) + 7 * number
        row = row.to(value.dtype).reshape(value.shape[1:] if value.ndim else ())
        state[name] = row.expand(value.shape)
    return state


def normalization(model: nn.Module) -> dict[str, object]:
    """Type, plain settings and buffers of the data preprocessor."""
    preprocessor = model.data_preprocessor
    plain = {
        name: value
        for name, value in vars(preprocessor).items()
        if isinstance(value, bool | int | float | str | None | torch.device)
    }
    buffers = {name: value.tolist() for name, value in preprocessor.named_buffers()}
    return {"type": type(preprocessor), **plain, **buffers}


@pytest.mark.parametrize("family", SMALLEST)
@pytest.mark.usefixtures("no_initialization")
def test_classifier_of_the_zoo_is_that_of_the_runner(family: str, tmp_path: Path) -> None:
    config = zoo_config(ZOO / family / f"{SMALLEST[family]}.py")
    assert is_classifier(config)
    expected = runner_of(config, tmp_path).model
    kept = expected.load_state_dict(patterns(expected), strict=False, assign=True).missing_keys
    assert not set(kept) & dict(expected.named_parameters()).keys()  # but tables of positions
    torch.save({"state_dict": expected.state_dict(), "meta": {}}, tmp_path / "weights.pth")
    model, _ = build_classifier(Config.fromfile(config.filename), str(tmp_path / "weights.pth"))
    state, expected_state = model.state_dict(), expected.state_dict()
    assert state.keys() == expected_state.keys()
    for name, value in expected_state.items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value), name
    assert normalization(model) == normalization(expected)
    assert normalization(model)["_enable_normalize"]
    images = torch.randint(0, 256, (2, 3, 61, 47), dtype=torch.uint8)
    normalized = [
        m.data_preprocessor({"inputs": images}, False)["inputs"] for m in (model, expected)
    ]
    assert torch.equal(*normalized)


# Mean and standard deviation of ImageNet's pixels in the order red, green, blue.
IMAGENET_MEAN = np.array([123.675, 116.28, 103.53])
IMAGENET_STD = np.array([58.395, 57.12, 57.375])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    """Random weights of Runner-built ResNets by depth, with 1000 classes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {}
    for depth in (50, 101):
        config = Config.fromfile(ZOO / "resnet" / f"resnet{depth}_8xb32_in1k.py")
        paths[depth] = folder / f"{depth}.pth"
        state = runner_of(config, folder / f"run{depth}").model.state_dict()
        torch.save({"state_dict": state, "meta": {}}, paths[depth])
    yield paths
    for path in paths.values():
        path.unlink()


@pytest.mark.parametrize("path", sorted(OWN.glob("*.py")), ids=lambda path: path.stem)
def test_own_configs_normalise_as_by_hand(path: Path, checkpoints: dict[int, Path]) -> None:
    """Blue-green-red pixels become red-green-blue, minus the mean, by the standard deviation."""
    config = Config.fromfile(path)
    assert config.model.head.num_classes == (21841 if "in14m" in path.stem else 1000)
    config.merge_from_dict({"model.head.num_classes": 1000})
    depth = config.model.backbone.depth
    assert f"resnet{depth}_" in path.stem
    model, _ = build_classifier(config, str(checkpoints[depth]))
    rng = np.random.default_rng(depth)
    picture = rng.integers(0, 256, (37, 53, 3), np.uint8)
    expected = (picture[..., ::-1] - IMAGENET_MEAN) / IMAGENET_STD
    images = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float()
    normalized = CamClassifier(model).normalize(images)
    assert normalized.shape == (1, 3, 37, 53)
    np.testing.assert_allclose(normalized[0].numpy().transpose(1, 2, 0), expected, atol=1e-5)
