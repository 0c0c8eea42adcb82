import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

import dap
from dap import _probes, _requirements, doctor
from dap._requirements import Finding, Requirement
from dap.doctor import FAIL, NOTE, OK, Result
from tests.support import fake_packages

DOCTOR = Path(__file__).resolve().parents[1] / "tools" / "doctor.py"


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Put a package into the way of the one that is installed, for processes started here."""

    def put(name, module, code):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / f"{module}.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


class TestTool:
    def test_this_installation_works(self):
        done = subprocess.run([sys.executable, str(DOCTOR)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("All that DAP needs works.\n")
        for what in (
            *fake_packages.FIT,
            "operators on cpu",
            "imports",
            "system",
            "checkpoints",
            "mim",
        ):
            assert re.search(rf"^{what}  .*  ok$", done.stdout, re.MULTILINE), done.stdout
        assert re.search(r"^(CUDA|GPU 0)  ", done.stdout, re.MULTILINE)

    def test_runs_where_dap_does_not(self, tmp_path):
        fake_packages.install(tmp_path, {**fake_packages.FIT, "mmdet": "2.28.2"}, ops=False)
        assert fake_packages.run(tmp_path, "-c", "import dap").returncode == 1
        done = fake_packages.run(tmp_path, str(DOCTOR))
        assert (done.returncode, done.stderr) == (1, "")
        assert re.search(r"^mmdet +2\.28\.2 +>= 3\.3 +FAIL$", done.stdout, re.MULTILINE)
        assert re.search(r"^mmcv +2\.1\.0 without operators +>= 2\.1 +FAIL$", done.stdout, re.M)
        assert f"run `{_requirements.OPERATORS_AGAIN} dap`" in done.stdout
        assert re.search(r"^note: mim: .*: for `mim train", done.stdout, re.MULTILINE)
        assert done.stdout.endswith("DAP cannot work like this.\n")

    def test_dap_not_installed(self):
        done = subprocess.run(
            [sys.executable, "-S", str(DOCTOR)], env={}, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "has no dap: run `uv sync` or `pip install -e .`" in done.stdout


class TestReport:
    def test_package(self):
        needed = Requirement("torch", "torch>=2.6,<2.12")
        assert doctor._package(Finding(needed, "2.11.0")) == Result("torch", "2.11.0", ">= 2.6")
        newer = doctor._package(Finding(needed, "2.12.0"))
        assert newer.state == NOTE
        assert newer.advice == "DAP was tested with versions below 2.12"
        assert doctor._package(Finding(needed, "2.5", "too old")).state == FAIL

    def test_table(self):
        results = [Result("a", "1.0", ">= 1"), Result("bcd", "none", state=NOTE, advice="get one")]
        assert doctor.report(results).splitlines() == [
            "     found  needed",
            "a    1.0    >= 1    ok",
            "bcd  none           note",
            "",
            "note: bcd: get one",
            "All that DAP needs works.",
        ]
        assert "cannot" in doctor.report([*results, Result("e", "", state=FAIL)])


class TestTrials:
    def test_exception_is_reported(self, broken):
        broken("mmcv", "ops", "raise ImportError('undefined symbol: at::foo')")
        (result,) = doctor._check("ops")
        assert (result.found, result.state) == ("failed", FAIL)
        assert result.advice.startswith("ImportError: undefined symbol: at::foo: mmcv's operators")

    def test_crash_is_reported(self, broken):
        broken("mmcv", "ops", "import os; os.abort()")
        (result,) = doctor._check("ops")
        assert result.state == FAIL
        assert result.advice.startswith("ended with exit code -6: mmcv's operators do not run")

    def test_hanging_trial_is_given_up(self, broken, monkeypatch):
        monkeypatch.setattr(doctor, "SECONDS", 0.5)
        broken("mim", "__main__", "import time; time.sleep(60)")
        (result,) = doctor._mim()
        assert result.state == NOTE
        assert result.advice.startswith("no answer in 0.5 s: ")

    @pytest.mark.parametrize("wrong", ["nms", "roi_align"])
    def test_nonsense_is_seen(self, monkeypatch, wrong):
        from mmcv import ops

        nonsense = {
            "nms": lambda boxes, scores, iou: (boxes, torch.arange(len(boxes))),
            "roi_align": lambda features, rois, *_: torch.zeros(len(rois), 8, 7, 7),
        }
        monkeypatch.setattr(ops, wrong, nonsense[wrong])
        (result,) = _probes.ops("cpu")
        assert result["state"] == FAIL
        assert "differs from torchvision's" in result["found"]

    def test_wrong_channels_last_is_noted(self, monkeypatch):
        """As mmcv 2.1.0's compiled roi_align on a CPU; that of torchvision is right."""
        from mmcv import ops

        def roi_align(features, rois, size, scale, samples, mode, aligned):
            result = torchvision.ops.roi_align(features, rois, size, scale, samples, aligned)
            return result if features.is_contiguous() else result + 2.8

        monkeypatch.setattr(ops, "roi_align", roi_align)
        results = [Result(**result) for result in _probes.ops("cpu")]
        assert [result.what for result in results] == ["operators on cpu", "channels_last on cpu"]
        assert results[1].state == NOTE

    def test_operators_in_use_are_named(self):
        (first, *_) = _probes.ops("cpu")
        compiled = not importlib.import_module("mmcv._ext").__file__.endswith(".py")
        assert first["found"] == (
            "compiled with mmcv" if compiled else "torchvision's and torch's, by DAP"
        )

    def test_other_systems_are_refused(self, monkeypatch):
        """Windows has no fcntl, which locks are made of."""
        monkeypatch.setattr(doctor.platform, "system", lambda: "Windows")
        result = doctor._system()
        assert result.state == FAIL
        assert "Linux and macOS" in result.advice

    def test_part_of_dap_that_cannot_be_imported_is_a_failure(self, tmp_path, monkeypatch):
        (tmp_path / "unfit.py").write_text("import no_such_package")
        monkeypatch.setattr(dap, "__path__", [*dap.__path__, str(tmp_path)])
        with pytest.raises(ImportError, match="no_such_package"):
            _probes.checkpoints()

    def test_safe_loader_switched_off(self, monkeypatch):
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        result = Result(**_probes.checkpoints()[-1])
        assert (result.what, result.state) == ("checkpoints", NOTE)
        assert "unset it" in result.advice


class TestCuda:
    @pytest.fixture
    def gpu(self, monkeypatch):
        """One GPU of compute capability 9.0, and a torch that is built for what is asked."""

        def pretend(architectures):
            monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
            monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A GPU")
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
            monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: architectures)
            works = {"what": "mmcv ops on cuda", "found": "nms, roi_align as torchvision's"}
            monkeypatch.setattr(_probes, "ops", lambda device: [works])

        return pretend

    def test_fit_gpu(self, gpu):
        gpu(["sm_80", "sm_90"])
        results = [Result(**result) for result in _probes.cuda()]
        assert [(r.what, r.state) for r in results] == [("GPU 0", OK), ("mmcv ops on cuda", OK)]

    def test_torch_is_not_built_for_the_gpu(self, gpu):
        gpu(["sm_70", "sm_75"])
        (result,) = _probes.cuda()
        assert result["state"] == FAIL
        assert "torch is built for sm_70 sm_75, the GPU is sm_90" in result["advice"]

    @pytest.mark.parametrize(("cuda", "advice"), [(None, "CPU build"), ("13.0", "no driver")])
    def test_no_gpu_is_a_note(self, monkeypatch, cuda, advice):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        (result,) = _probes.cuda()
        assert result["state"] == NOTE
        assert advice in result["advice"]

    @pytest.mark.parametrize(
        ("capability", "architectures", "fits"),
        [
            ((9, 0), ["sm_80", "sm_90"], True),
            ((8, 6), ["sm_80"], True),
            ((8, 0), ["sm_86"], False),
            ((9, 0), ["sm_80"], False),
            ((9, 0), ["sm_80", "compute_80"], True),
            ((9, 0), ["sm_90a"], True),
            ((12, 0), ["sm_90a", "sm_100"], False),
            ((12, 0), ["sm_100", "sm_120"], True),
            ((9, 0), [], False),
        ],
    )
    def test_built_for(self, capability, architectures, fits):
        assert _probes.built_for(*capability, architectures) == fits
