"""The modules of projects/real_mini, and plans of its benchmark."""

import importlib
import json
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2] / "projects" / "real_mini"


@pytest.fixture(scope="module")
def project():
    """The modules of the project by name; its folder is no package."""
    before = list(sys.path)
    sys.path.insert(0, str(PROJECT))
    names = ("replace_boxes", "plan", "report", "run", "map_variants", "sample_target")
    for name in names:  # of another project, which has modules of the same names
        sys.modules.pop(name, None)
    yield {name: importlib.import_module(name) for name in names}
    sys.path[:] = before
    for name in names:
        sys.modules.pop(name)


@pytest.fixture
def work_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def target(project, work_dir):
    """A detection set of foxes and owls; its files have categories and no images."""
    for split in ("train", "test"):
        categories = [{"id": 1, "name": "fox"}, {"id": 2, "name": "owl"}]
        (work_dir / f"{split}.json").write_text(json.dumps({"categories": categories}))
    return project["plan"].Target("zoo", "train.json", "test.json", "images/a", "images/b")


@pytest.fixture
def make_plan(project, target):
    """Make a plan of the benchmark that has some of its parts."""

    def make(*parts, shots=(5,), seeds=(0,), scale="cpu", **options):
        plan = project["plan"].Benchmark(
            Path("photos"), target, list(shots), list(seeds), scale, 2, **options
        )
        if parts:
            plan.add(parts)
        return plan

    return make
