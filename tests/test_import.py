import importlib
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.registry import Registry
from mmengine.runner import load_checkpoint

import dap.registry
from dap import _requirements
from tests.support import fake_packages, tiny_runner

ROOT = Path(__file__).resolve().parents[1]
LOCATIONS = sorted(
    {
        location
        for node in vars(dap.registry).values()
        if isinstance(node, Registry) and node.scope == "dap"
        for location in node._locations
    }
)
# `dap` without its __init__, where a test wants the gate to be passed and numpy is a fake.
CHECK = (
    "import sys, importlib.util as u; sys.modules['dap'] = u.module_from_spec(u.find_spec('dap'));"
    "from dap import _requirements; _requirements.check()"
)


def complaint(folder):
    done = fake_packages.run(folder, "-c", "import dap")
    assert done.returncode == 1
    name, _, sentence = done.stderr.splitlines()[-1].partition(": ")
    assert name == "dap._requirements.RequirementError"
    return sentence


class TestVersionGate:
    @pytest.mark.parametrize("module", [m for m in fake_packages.FIT if m != "pkg_resources"])
    def test_missing_package(self, tmp_path, module):
        others = {name: v for name, v in fake_packages.FIT.items() if name != module}
        fake_packages.install(tmp_path, others)
        (install,) = (r.install for r in _requirements.REQUIREMENTS if r.module == module)
        cure = _requirements.MMCV_LITE if module == "mmcv" else f"pip install '{install}'"
        expected = rf"DAP needs {module}( >= [\d.]+)?, and found none: run `{re.escape(cure)}`"
        assert re.fullmatch(expected, complaint(tmp_path))

    @pytest.mark.parametrize(
        ("module", "version"),
        [("torch", "2.5.1"), ("mmengine", "0.10.4"), ("mmdet", "2.28.2"), ("mmpretrain", "1.1.0")],
    )
    def test_old_package(self, tmp_path, module, version):
        fake_packages.install(tmp_path, {**fake_packages.FIT, module: version})
        sentence = complaint(tmp_path)
        assert f", and found {version} in {tmp_path / module}: run `pip install '{module}>=" in (
            sentence
        )

    def test_mmcv_without_operators(self, tmp_path):
        fake_packages.install(tmp_path, fake_packages.FIT, ops=False)
        sentence = complaint(tmp_path)
        assert sentence.startswith(f"{tmp_path / 'mmcv'} has no operators: no compiled ones for")
        assert "`pip install --force-reinstall --no-deps dap`" in sentence

    def test_operators_of_another_python_do_not_count(self, tmp_path):
        fake_packages.install(tmp_path, fake_packages.FIT, ops=False)
        (tmp_path / "mmcv" / "_ext.cpython-38-x86_64-linux-gnu.so").touch()
        assert "has no operators" in complaint(tmp_path)

    def test_operators_by_dap_count(self, tmp_path):
        fake_packages.install(tmp_path, fake_packages.FIT, ops=False)
        (tmp_path / "mmcv" / "_ext.py").touch()
        done = fake_packages.run(tmp_path, "-c", CHECK)
        assert (done.returncode, done.stderr) == (0, "")

    def test_operators_by_dap_alone_are_no_mmcv(self, tmp_path):
        """What is left of mmcv/ when mmcv was removed, or was never there."""
        others = {name: v for name, v in fake_packages.FIT.items() if name != "mmcv"}
        fake_packages.install(tmp_path, others)
        (tmp_path / "mmcv").mkdir()
        (tmp_path / "mmcv" / "_ext.py").touch()
        sentence = complaint(tmp_path)
        assert sentence == (
            "DAP needs mmcv >= 2.1, and found none: run `pip install mmcv-lite==2.1.0`"
        )

    @pytest.mark.parametrize(("version", "words"), [
        ("2.2.0", "mmdet 3.3.0 refuses mmcv >= 2.2, and found 2.2.0: "),
        ("2.0.1", "DAP needs mmcv >= 2.1, and found 2.0.1 in "),
    ])  # fmt: skip
    def test_mmcv_of_another_version_is_not_installed_over(self, tmp_path, version, words):
        fake_packages.install(tmp_path, {**fake_packages.FIT, "mmcv": version})
        sentence = complaint(tmp_path)
        assert sentence.startswith(words)
        assert "in a new environment, or run `pip uninstall --yes mmcv && pip install" in sentence

    def test_setuptools_without_pkg_resources(self, tmp_path):
        others = {name: v for name, v in fake_packages.FIT.items() if name != "pkg_resources"}
        fake_packages.install(tmp_path, others)
        assert complaint(tmp_path).endswith(": run `pip install 'setuptools<81'`")

    def test_stray_folder_is_no_package(self, tmp_path):
        others = {name: v for name, v in fake_packages.FIT.items() if name != "mmdet"}
        fake_packages.install(tmp_path, others)
        (tmp_path / "mmdet").mkdir()
        assert complaint(tmp_path).startswith("DAP needs mmdet >= 3.3, and found none")

    def test_several_problems(self, tmp_path):
        fake_packages.install(tmp_path, {"torch": "2.11.0"})
        sentence = complaint(tmp_path)
        assert sentence.startswith("DAP needs torchvision >= 0.21, and found none")
        assert sentence.endswith("(14 more: see tools/doctor.py)")

    @pytest.mark.parametrize(
        "versions",
        [
            {},
            {"mmengine": "0.10.12", "mmcv": "2.3.6", "mmdet": "3.5.1", "mmpretrain": "1.3.6"},
            {"torch": "2.12.0"},
        ],
        ids=["the tested versions", "forks", "a newer torch"],
    )
    def test_fit_installation_passes(self, tmp_path, versions):
        fake_packages.install(tmp_path, {**fake_packages.FIT, **versions})
        done = fake_packages.run(tmp_path, "-c", CHECK)
        assert (done.returncode, done.stderr) == (0, "")

    def test_newer_mmengine_needs_no_pkg_resources(self, tmp_path):
        versions = {**fake_packages.FIT, "mmengine": "0.10.12"}
        del versions["pkg_resources"]
        fake_packages.install(tmp_path, versions)
        done = fake_packages.run(tmp_path, "-c", CHECK)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize(("version", "fits"), [("0.10.12", True), ("0.10.1", False)])
    def test_version_from_metadata(self, tmp_path, version, fits):
        fake_packages.install(tmp_path, fake_packages.FIT)
        (tmp_path / "mmengine/version.py").write_text(
            "from importlib.metadata import version\n__version__ = version('some-fork')\n"
        )
        (tmp_path / f"some_fork-{version}.dist-info").mkdir()
        (tmp_path / f"some_fork-{version}.dist-info/METADATA").write_text(
            f"Metadata-Version: 2.1\nName: some-fork\nVersion: {version}\n"
        )
        done = fake_packages.run(tmp_path, "-c", CHECK)
        assert (done.returncode == 0) == fits
        assert fits or f"found {version} in" in done.stderr

    def test_unknown_version_passes(self, tmp_path):
        fake_packages.install(tmp_path, fake_packages.FIT)
        (tmp_path / "mmengine/version.py").write_text(
            "from importlib.metadata import version\n__version__ = version('not-installed')\n"
        )
        assert fake_packages.run(tmp_path, "-c", CHECK).returncode == 0

    def test_registry_shows_the_complaint(self, tmp_path):
        """MMEngine looks for dap.X by itself, and swallows an ImportError while it does."""
        fake_packages.install(tmp_path, {"mmpretrain": "0.1"})
        code = "from mmengine.registry import HOOKS; HOOKS.build(dict(type='dap.PseudoBoxHook'))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "RequirementError: DAP needs mmpretrain >= 1.2" in done.stderr.splitlines()[-1]

    def test_demands_are_those_of_pyproject(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        demanded = {requirement.install for requirement in _requirements.REQUIREMENTS}
        # mmcv is left to the environment: it may have mmcv, mmcv-lite or a fork.
        assert demanded == {*project["dependencies"], "mmcv>=2.1,<2.2"}

    @pytest.mark.parametrize(
        ("version", "numbers"),
        [("2.11.0+cu130", (2, 11, 0)), ("0.10.8rc1", (0, 10, 8)), ("3", (3,)), ("missing", ())],
    )
    def test_release(self, version, numbers):
        assert _requirements.release(version) == numbers


class TestImport:
    def test_is_light(self):
        code = (
            "import sys, dap; print(sorted({m.split('.')[0] for m in sys.modules} & "
            "{'mmcv', 'mmdet', 'mmpretrain', 'torchvision', 'cv2', 'pandas', 'matplotlib'}))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr

    def test_hides_the_warning_of_mmengine(self):
        """It would stand in the log of every process, once for each check of a package."""
        code = "import dap; from mmengine.utils import is_installed; is_installed('numpy')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("location", LOCATIONS)
    def test_registry_location(self, location):
        importlib.import_module(location)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Work directory of a run in another process, which has never heard of dap."""
    folder = tmp_path_factory.mktemp("trained")
    done = subprocess.run(
        [sys.executable, tiny_runner.__file__, str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "refused without dap" in done.stdout
    return folder


def through_the_safe_loader(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file)


class TestSafeGlobals:
    def test_checkpoint_loads(self, trained):
        checkpoint = torch.load(trained / "epoch_2.pth")
        log = checkpoint["message_hub"]["log_scalars"]["train/loss"]
        assert isinstance(log, HistoryBuffer)
        assert len(log.data[0]) == 4
        assert log.statistics("mean") == pytest.approx(log.data[0].mean())
        np.testing.assert_array_equal(checkpoint["meta"]["dataset_meta"]["areas"], [1, 2])
        (best,) = trained.glob("best_*.pth")
        assert torch.load(best)["message_hub"]["runtime_info"]["best_score"] == 0.5

    def test_checkpoint_of_numpy_1_loads(self, trained, tmp_path):
        """Numpy 2 renamed numpy.core; the files of the two differ in that name."""
        old = tmp_path / "old.pth"
        with zipfile.ZipFile(trained / "epoch_2.pth") as new, zipfile.ZipFile(old, "w") as file:
            for name in new.namelist():
                names = (b"numpy._core.multiarray", b"numpy.core.multiarray")
                file.writestr(name, new.read(name).replace(*names))
        assert "numpy.core.multiarray._reconstruct" in _globals_of(old)
        assert torch.load(old)["message_hub"]["runtime_info"]["best_score"] == 0.5

    def test_run_resumes(self, trained, tmp_path):
        shutil.copy(trained / "epoch_2.pth", tmp_path)
        (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_2.pth"))
        runner = tiny_runner.make_runner(tmp_path, 3, resume=True)
        runner.train()
        assert (runner.epoch, runner.iter) == (3, 6)
        assert len(runner.message_hub.get_scalar("train/loss").data[0]) == 6
        one_cycle = runner.param_schedulers[1]
        assert one_cycle.anneal_func is OneCycleParamScheduler._annealing_cos

    @pytest.mark.parametrize("way", ["load_from", "init_cfg"])
    def test_weights_load(self, trained, way):
        path = str(trained / "epoch_2.pth")
        if way == "load_from":
            model = tiny_runner.Line()
            load_checkpoint(model, path)
        else:
            model = tiny_runner.Line({"type": "Pretrained", "checkpoint": path})
            model.init_weights()
        assert torch.equal(model.layer.weight, torch.load(path)["state_dict"]["layer.weight"])

    @pytest.mark.parametrize(
        "value",
        [
            np.float32(1.5),
            np.int64(3),
            np.bool_(True),
            np.str_("text"),
            np.arange(6, dtype=np.uint8).reshape(2, 3),
            np.array([[True, False]]),
            np.array(["a", "bc"]),
            np.zeros((0, 4), np.float32),
            ConfigDict(classes=("a", "b"), nested=ConfigDict(x=1)),
            OneCycleParamScheduler._annealing_linear,
        ],
        ids=lambda value: getattr(value, "__name__", repr(value)),
    )
    def test_value_survives(self, value):
        loaded = through_the_safe_loader({"value": value})["value"]
        assert type(loaded) is type(value)
        assert np.array_equal(loaded, value)

    @pytest.mark.parametrize(
        ("owner", "name"),
        [
            (HistoryBuffer, "__init__"),
            (HistoryBuffer, "__setstate__"),
            (OneCycleParamScheduler, "__init__"),
            (np.ndarray, "tofile"),
            (dict, "mean"),
        ],
    )
    def test_no_other_attribute_is_given_out(self, owner, name):
        with pytest.raises(pickle.UnpicklingError):
            through_the_safe_loader(Call(getattr, owner, name))

    @pytest.mark.parametrize("function", [os.system, eval, exec, importlib.import_module])
    def test_nothing_else_is_called(self, function):
        with pytest.raises(pickle.UnpicklingError, match=r"(?i)unsupported global"):
            through_the_safe_loader(Call(function, "0"))

    def test_second_registration_adds_nothing(self):
        before = set(torch.serialization.get_safe_globals())
        dap._safe_globals.register()
        assert set(torch.serialization.get_safe_globals()) == before


class Call:
    """Pickled as a call that is made when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _globals_of(path):
    registered = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    finally:
        torch.serialization.add_safe_globals(registered)


@pytest.mark.parametrize(("installed", "left_out"), [("5.24.0", True), ("4.57.1", False)])
def test_multimodal_models_are_left_out_beside_transformers_5(monkeypatch, installed, left_out):
    from mmpretrain.utils import dependency

    monkeypatch.setattr(dependency, "WITH_MULTIMODAL", True)
    monkeypatch.setattr("importlib.metadata.version", lambda name: installed)
    dap._disable_multimodal_models()
    assert dependency.WITH_MULTIMODAL is not left_out


def test_without_transformers_nothing_is_changed(monkeypatch):
    from mmpretrain.utils import dependency

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(dependency, "WITH_MULTIMODAL", True)
    monkeypatch.setattr("importlib.metadata.version", missing)
    dap._disable_multimodal_models()
    assert dependency.WITH_MULTIMODAL
