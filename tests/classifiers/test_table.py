"""The table in docs/classifiers.md is what the classifiers themselves say."""

import pytest
from classifier_table import SMALLEST, TIMM, classifiers, row, rows_on_page

QUICK = (
    *(f"{family}/{SMALLEST[family]}.py"
      for family in ("convnext_v2", "deit", "lenet", "levit", "mobilenet_v3", "shufflenet_v2")),
    "timm:convnext_atto", "timm:levit_128s", "timm:regnetx_002", "timm:vit_tiny_patch16_224",
    "torchvision:squeezenet1_1",
)  # fmt: skip


@pytest.fixture
def needs_package():
    def check(name):
        if name.startswith("timm:"):
            pytest.importorskip("timm", reason="of the dependency group lite0")

    return check


def test_page_names_every_classifier_once():
    assert list(rows_on_page()) == classifiers()
    assert len(SMALLEST) == 73
    assert len(TIMM) >= 20


def test_every_kind_of_maps_is_among_them():
    kinds = {line.split(" | ")[1] for line in rows_on_page().values()}
    assert kinds == {"exact", "by gradient", "by gradient, AG-CAM", "refused"}
    assert all(len(line.split(" | ")[2]) > 2 for line in rows_on_page().values())


@pytest.mark.parametrize("name", QUICK)
def test_row_is_what_is_computed(name, needs_package):
    needs_package(name)
    assert row(name) == rows_on_page()[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in classifiers() if name not in QUICK])
def test_row_is_what_is_computed_for_all_others(name, needs_package):
    needs_package(name)
    assert row(name) == rows_on_page()[name]
