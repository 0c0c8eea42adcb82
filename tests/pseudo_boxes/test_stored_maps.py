"""Maps of many images of a store at once: those of each image alone, and why one has none."""

from collections.abc import Iterator
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import nn

from dap.classifiers.methods import ExactMaps
from dap.images.class_folders import ClassFolders
from dap.images.labelled_images import read_image
from dap.pseudo_boxes import PseudoBoxSettings, PseudoBoxStore, generate_pseudo_boxes
from dap.pseudo_boxes.classifier import CamClassifier, evaluating
from dap.pseudo_boxes.stored_maps import StoredMaps
from dap.testing import write_image
from tests.support.planted import model_config, planted_classifier, planted_state

SIZES_HW = [(70, 91), (91, 70), (70, 91), (64, 200), (133, 131), (40, 33), (70, 90), (91, 70)]
LABELS = [[0], [2, 5], [1, 3, 999], [7], [0, 1], [4], [], [6, 8]]


@pytest.fixture(scope="module")
def mobilenet() -> nn.Module:
    """MobileNet-V2 of mmpretrain's own config, weights and statistics of its norms random."""
    init_default_scope("mmpretrain")
    torch.manual_seed(3)
    folder = Path(mmpretrain.__file__).parent / ".mim/configs/mobilenet_v2"
    config = Config.fromfile(folder / "mobilenet-v2_8xb32_in1k.py")
    model = MODELS.build({**config.model, "data_preprocessor": config.data_preprocessor})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return model


def store_of(root: Path, model: nn.Module, num_classes: int, **settings) -> PseudoBoxStore:
    (folder,) = (path.name for path in root.iterdir())
    names = [folder, *(f"class {i}" for i in range(1, num_classes))]
    images = ClassFolders(str(root), num_classes, names)
    generate_pseudo_boxes(
        model, images, root.parent / "boxes", PseudoBoxSettings(**settings), "random.pth"
    )
    return PseudoBoxStore(root.parent / "boxes")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Noise of several sizes, more images than a worker reads at once; the fourth is broken."""
    rng = np.random.default_rng(0)
    for number in range(3 * len(SIZES_HW)):
        size_hw = SIZES_HW[number % len(SIZES_HW)]
        picture = rng.integers(0, 255, (*size_hw, 3), np.uint8)
        write_image(tmp_path / "images" / "a" / f"{number:02d}.png", picture)
    (tmp_path / "images" / "a" / "03.png").write_bytes(b"no image")
    return tmp_path / "images"


@pytest.mark.parametrize("rule", ["paper", "release", "extent"])
def test_many_images_are_as_each_alone(photographs, mobilenet, rule):
    """Up to rounding, though read elsewhere, by a folded network, in windows and threads."""
    mobilenet.train()
    store = store_of(photographs, mobilenet, 1000, short_sides=(64, 96), rule=rule)
    names = [f"a/{number:02d}.png" for number in range(3 * len(SIZES_HW))]
    items = [(name, LABELS[i % len(LABELS)]) for i, name in enumerate(names)]
    found = list(StoredMaps(store, mobilenet).of_images(items))
    assert [image.file_name for image in found] == names
    assert mobilenet.training
    assert mobilenet.backbone.conv1.training
    classifier = CamClassifier(mobilenet)
    for image, (name, labels) in zip(found, items, strict=True):
        if name == "a/03.png":
            assert image.error.startswith("ValueError: not an image")
            assert not image.by_label
            continue
        assert image.error is None
        assert list(image.by_label) == labels
        pixels = read_image(str(photographs / name))
        assert image.size_hw == tuple(pixels.shape[1:])
        with evaluating(mobilenet):
            alone = classifier.maps(
                pixels, torch.tensor(labels, dtype=int), PseudoBoxSettings.from_store(store)
            )
        for i, label in enumerate(labels):
            cam = image.by_label[label]
            scale = alone.maps[i].abs().max()
            torch.testing.assert_close(
                cam.maps[0] / scale, alone.maps[i] / scale, atol=1e-4, rtol=0
            )
            assert cam.cell_size == pytest.approx(alone.cell_size)


def test_features_are_computed_once_for_all_labels_of_an_image(photographs, mobilenet, monkeypatch):
    """Two images at two scales: four forwards, of the fast copy of the backbone."""
    store = store_of(photographs, mobilenet, 1000, short_sides=(64, 96))
    maps, used = StoredMaps(store, mobilenet), []

    def features(self, images, plain=ExactMaps.features):
        used.append(self._tap.network)
        return plain(self, images)

    monkeypatch.setattr(ExactMaps, "features", features)
    list(maps.of_images([("a/00.png", [0, 1, 2]), ("a/01.png", [5])]))
    assert len(used) == 4
    assert not any(isinstance(m, nn.BatchNorm2d) for m in used[0].modules())


def test_maps_at_the_size_of_their_images(photographs, mobilenet):
    """What the evaluation takes; a window holds 32 images, so that nothing waits for the last."""
    store = store_of(photographs, mobilenet, 1000, short_sides=(64,))
    found = StoredMaps(store, mobilenet).score_maps(
        [("a/03.png", [0]), ("a/00.png", [0, 4])] + [("a/01.png", [0])] * 40
    )
    assert isinstance(found, Iterator)
    assert next(found).startswith("ValueError: not an image")
    by_label = next(found)
    assert list(by_label) == [0, 4]
    for score_map in by_label.values():
        assert (score_map.shape, score_map.dtype) == (SIZES_HW[0], np.float32)
        assert (score_map.min(), score_map.max()) == (0, 1)
    found.close()


def test_map_that_is_not_finite_or_fails_names_its_image(tmp_path):
    """Of three images the black one has no map; the others have theirs."""
    for name, error in (
        ("NanOnBlack", "FloatingPointError: the activation map is NaN or infinite"),
        ("FailsOnBlack", "RuntimeError: the device says no"),
    ):
        root = tmp_path / name / "images"
        for number, value in enumerate((90, 0, 200)):
            picture = np.full((40, 64, 3), value, np.uint8)
            picture[: value // 10] = value // 2
            write_image(root / "red" / f"{number}.png", picture)
        model = MODELS.build(model_config(backbone={"type": name}))
        model.load_state_dict(planted_state())
        store = store_of(root, model, 3, short_sides=(32,))
        names = [f"red/{number}.png" for number in range(3)]
        found = list(StoredMaps(store, model).of_images([(name, [1, 2]) for name in names]))
        assert [image.error is None for image in found] == [True, False, True]
        assert error in found[1].error


def test_images_elsewhere_and_none(photographs, tmp_path):
    model = planted_classifier()
    store = store_of(photographs, model, 3, short_sides=(64,))
    moved = tmp_path / "moved"
    photographs.rename(moved)
    maps = StoredMaps(store, model)
    (gone,) = maps.of_images([("a/00.png", [0])])
    assert gone.error.startswith("FileNotFoundError")
    assert gone.size_hw == (0, 0)
    (there,) = maps.of_images([("a/00.png", [0])], moved)
    assert there.error is None
    assert list(maps.of_images([])) == []
