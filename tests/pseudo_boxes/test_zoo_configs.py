"""Step 2 builds a classifier as MMEngine's Runner does: weights and normalisation, per config."""

import inspect
import sys
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
sys.path.append(str(Path(__file__).parents[2] / "tools" / "benchmarks"))
from classifier_table import SMALLEST  # noqa: E402

OWN = Path(__file__).parents[2] / "configs" / "pseudo_boxes"

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
