import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dap import launch

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def bash(script, *arguments, cwd=None, **environment):
    return subprocess.run(
        ["bash", str(TOOLS / script), *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def recorder(tmp_path):
    """An interpreter that writes down its arguments and ends with exit code 7."""
    script = tmp_path / "python"
    script.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > {tmp_path}/said\nexit 7\n')
    script.chmod(0o755)
    return script


class TestScripts:
    @pytest.mark.parametrize("script", sorted(TOOLS.glob("*.sh")), ids=lambda path: path.name)
    def test_syntax(self, script):
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert os.access(script, os.X_OK)

    @pytest.mark.parametrize(
        ("script", "arguments", "launched"),
        [
            (
                "dist_train.sh",
                ("a b.py", "2", "--cfg-options", "x='a b'", "y=[1,2]"),
                ["train", "a b.py", "--cfg-options", "x='a b'", "y=[1,2]"],
            ),
            ("dist_test.sh", ("a.py", "b.pth", "2", "--tta"), ["test", "a.py", "b.pth", "--tta"]),
        ],
    )
    def test_command(self, recorder, script, arguments, launched):
        environment = {"NNODES": "3", "NODE_RANK": "1", "PORT": "29501", "MASTER_ADDR": "10.0.0.1"}
        done = bash(script, *arguments, PYTHON=str(recorder), **environment)
        assert done.returncode == 7
        assert recorder.with_name("said").read_text().splitlines() == [
            *("-m", "torch.distributed.run", "--nnodes=3", "--node-rank=1"),
            *("--master-addr=10.0.0.1", "--master-port=29501", "--nproc-per-node=2"),
            *("-m", "dap.launch", "mmdet", *launched, "--launcher", "pytorch"),
        ]

    def test_one_machine_takes_a_free_port(self, recorder, monkeypatch):
        for name in ("NNODES", "NODE_RANK", "PORT", "MASTER_ADDR"):
            monkeypatch.delenv(name, raising=False)
        bash("dist_train.sh", "a.py", "2", PYTHON=str(recorder))
        said = recorder.with_name("said").read_text().splitlines()
        assert said[2:6] == [
            *("--nnodes=1", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"),
            "--local-addr=localhost",
        ]
        bash("dist_train.sh", "a.py", "2", PYTHON=str(recorder), PORT="29501")
        said = recorder.with_name("said").read_text().splitlines()
        assert said[3:6] == [*("--node-rank=0", "--master-addr=127.0.0.1", "--master-port=29501")]

    @pytest.mark.parametrize(
        ("script", "arguments"),
        [
            ("dist.sh", ("train", "2")),
            ("dist_train.sh", ("a.py",)),
            ("dist_test.sh", ("a", "b")),
            ("slurm.sh", ("train", "gpu", "name")),
            ("slurm_train.sh", ("gpu", "name")),
            ("slurm_test.sh", ("gpu", "name", "a.py")),
        ],
    )
    def test_usage(self, script, arguments):
        done = bash(script, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith(f"usage: tools/{script} ")

    def test_two_processes(self, tmp_path):
        """A package whose tool adds up the ranks, by real torchrun and gloo."""
        make_package(
            tmp_path / "adder",
            "import json, sys, torch\n"
            "total = torch.tensor(torch.distributed.get_rank() + 1)\n"
            "torch.distributed.all_reduce(total)\n"
            "if torch.distributed.get_rank() == 0:\n"
            "    json.dump([int(total), sys.argv[2:]], open('said.json', 'w'))\n"
            "torch.distributed.destroy_process_group()\n",
        )
        (tmp_path / "a.py").touch()
        done = bash(
            *("dist_train.sh", "a.py", "2", "--resume"),
            cwd=tmp_path,
            PACKAGE="adder",
            PYTHONPATH=str(tmp_path),
            PYTHON=sys.executable,
            CUDA_VISIBLE_DEVICES="",
        )
        assert done.returncode == 0, done.stderr
        total, arguments = json.loads((tmp_path / "said.json").read_text())
        assert total == 1 + 2
        assert arguments[:4] == ["--resume", "--launcher", "pytorch", "--cfg-options"]

    def test_two_calls_at_once_on_one_machine(self, tmp_path):
        """Each waits for the other's file before it ends, so that both hold their ports at once."""
        make_package(
            tmp_path / "meeter",
            "import pathlib, sys, time, torch\n"
            "own, other = sys.argv[2:4]\n"
            "torch.distributed.barrier()\n"
            "pathlib.Path(own).touch()\n"
            "end = time.monotonic() + 200\n"
            "while not pathlib.Path(other).exists() and time.monotonic() < end: time.sleep(.05)\n"
            "torch.distributed.barrier()\n"
            "torch.distributed.destroy_process_group()\n"
            "raise SystemExit(not pathlib.Path(other).exists())\n",
        )
        (tmp_path / "a.py").touch()
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PORT"},
            **{"PACKAGE": "meeter", "PYTHONPATH": str(tmp_path), "PYTHON": sys.executable},
            "CUDA_VISIBLE_DEVICES": "",
        }
        calls = [
            subprocess.Popen(
                ["bash", str(TOOLS / "dist_train.sh"), "a.py", "2", own, other],
                cwd=tmp_path,
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            for own, other in (("one", "two"), ("two", "one"))
        ]
        said = [call.communicate(timeout=300)[1] for call in calls]
        assert [call.returncode for call in calls] == [0, 0], said


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """A stand-in for Slurm: notes what it is told, and does it."""
    script = tmp_path / "bin" / "srun"
    script.parent.mkdir()
    script.write_text(
        "#!/usr/bin/env bash\n"
        f'printf "%s\\n" "${{MASTER_PORT:-none}}" "$@" > {tmp_path}/srun_said\n'
        'while [[ "$1" == -* ]]; do shift; done\n'
        "export SLURM_JOB_ID=1251 SLURM_STEP_ID=3 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0\n"
        "export SLURM_NODELIST=here\n"
        'exec "$@"\n'
    )
    (script.parent / "scontrol").write_text("#!/usr/bin/env bash\necho 127.0.0.1\n")
    (script.parent / "scontrol").chmod(0o755)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    for name in (
        *("GPUS", "GPUS_PER_NODE", "CPUS_PER_TASK", "SRUN_ARGS", "PORT", "MASTER_PORT"),
        "PACKAGE",
    ):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "srun_said"


class TestSlurm:
    @pytest.mark.parametrize(
        ("script", "arguments", "launched"),
        [
            (
                "slurm_train.sh",
                ("gpu", "my job", "a b.py", "--cfg-options", "x='a b'", "y=[1,2]"),
                ["train", "a b.py", "--cfg-options", "x='a b'", "y=[1,2]"],
            ),
            (
                "slurm_test.sh",
                ("gpu", "my job", "a.py", "b.pth", "--tta"),
                ["test", "a.py", "b.pth", "--tta"],
            ),
        ],
    )
    def test_command(self, srun, recorder, script, arguments, launched):
        environment = {
            **{"GPUS": "16", "GPUS_PER_NODE": "4", "CPUS_PER_TASK": "3", "PORT": "29501"},
            **{"SRUN_ARGS": "--quotatype=spot --exclude=a,b", "PACKAGE": "mmpretrain"},
        }
        done = bash(script, *arguments, PYTHON=str(recorder), **environment)
        assert done.returncode == 7
        command = ["-u", "-m", "dap.launch", "mmpretrain", *launched, "--launcher", "slurm"]
        assert srun.read_text().splitlines() == [
            *("29501", "--partition=gpu", "--job-name=my job", "--gres=gpu:4", "--ntasks=16"),
            *("--ntasks-per-node=4", "--cpus-per-task=3", "--kill-on-bad-exit=1"),
            *("--quotatype=spot", "--exclude=a,b", str(recorder), *command),
        ]
        assert recorder.with_name("said").read_text().splitlines() == command

    def test_boxes(self, srun, recorder):
        arguments = ("boxes", "gpu", "name", "a.py", "b.pth", "--out", "boxes")
        done = bash("slurm.sh", *arguments, PYTHON=str(recorder))
        assert done.returncode == 7
        tool = str(TOOLS / "generate_pseudo_boxes.py")
        command = ["-u", tool, "a.py", "b.pth", "--out", "boxes", "--launcher", "slurm"]
        assert recorder.with_name("said").read_text().splitlines() == command

    @pytest.mark.parametrize(
        ("environment", "gpus", "per_node"),
        [({}, 8, 8), ({"GPUS": "2"}, 2, 2), ({"GPUS": "16"}, 16, 8)],
    )
    def test_defaults(self, srun, recorder, environment, gpus, per_node):
        bash("slurm_train.sh", "gpu", "name", "a.py", PYTHON=str(recorder), **environment)
        said = srun.read_text().splitlines()
        assert said[0] == "none"
        assert said[3:8] == [
            *(f"--gres=gpu:{per_node}", f"--ntasks={gpus}", f"--ntasks-per-node={per_node}"),
            *("--cpus-per-task=5", "--kill-on-bad-exit=1"),
        ]
        assert said[-5:] == ["mmdet", "train", "a.py", "--launcher", "slurm"]

    def test_without_gpu(self, srun, tmp_path):
        """Slurm's variables become torch's; the port is 10000 + (16 · 1251 + 3) mod 20000."""
        make_package(
            tmp_path / "ranker",
            "import json, os, torch\n"
            "names = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')\n"
            "json.dump([torch.distributed.get_backend(), *(os.environ[name] for name in names)], "
            "open('said.json', 'w'))\n",
        )
        (tmp_path / "a.py").touch()
        done = bash(
            *("slurm_train.sh", "gpu", "name", "a.py"),
            cwd=tmp_path,
            PACKAGE="ranker",
            PYTHONPATH=f"{tmp_path}:{TOOLS.parent}",
            PYTHON=sys.executable,
            CUDA_VISIBLE_DEVICES="",
        )
        assert done.returncode == 0, done.stderr
        said = json.loads((tmp_path / "said.json").read_text())
        assert said == ["gloo", "0", "1", "0", "127.0.0.1", "10019"]

    def test_without_slurm(self, monkeypatch):
        monkeypatch.delenv("SLURM_PROCID", raising=False)
        with pytest.raises(ValueError, match="expected a process started by srun"):
            launch.init_processes("slurm")

    def test_processes_that_read_images_are_forked_on_gpus_too(self, monkeypatch):
        """MMEngine chooses spawn unless a start method is set."""
        said = []
        monkeypatch.setattr(launch.torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(launch, "init_dist", lambda launcher: said.append(launcher))
        start_method = launch.multiprocessing
        monkeypatch.setattr(start_method, "get_start_method", lambda allow_none: None)
        monkeypatch.setattr(start_method, "set_start_method", said.append)
        launch.init_processes("pytorch")
        assert said == ["fork", "pytorch"]


class TestLaunch:
    @pytest.mark.parametrize(
        ("arguments", "launcher"),
        [
            (["--resume", "--cfg-options", "a=1", "b=2", "--launcher", "slurm"], "slurm"),
            (["b.pth", "--launcher=pytorch", "--tta"], "pytorch"),
            (["--cfg-options", "launch=slurm"], "none"),
            ([], "none"),
        ],
    )
    def test_launcher(self, arguments, launcher):
        assert launch.launcher_in(arguments) == launcher

    def test_one_process(self, tmp_path):
        """Without a launcher the tool runs as it is, GPU or none."""
        make_package(
            tmp_path / "lonely",
            "import sys, torch; print(torch.distributed.is_initialized(), sys.argv[1:])",
        )
        done = subprocess.run(
            [sys.executable, "-m", "dap.launch", "lonely", "train", "a.py", "--resume"],
            env={**os.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "False ['a.py', '--resume']\n"), done.stderr

    def test_installed_tool(self):
        for package in ("mmdet", "mmpretrain"):
            assert "def main()" in launch.installed_tool(package, "train").read_text()
        with pytest.raises(FileNotFoundError, match=r"mmdet has no .*fly\.py"):
            launch.installed_tool("mmdet", "fly")
        with pytest.raises(FileNotFoundError, match="no package 'mmfly'"):
            launch.installed_tool("mmfly", "train")

    @pytest.mark.parametrize(
        ("config", "options"),
        [
            ("", ["broadcast_buffers=False", "find_unused_parameters=False"]),
            (
                "find_unused_parameters = True",
                ["broadcast_buffers=False", "find_unused_parameters=True"],
            ),
            ("model_wrapper_cfg = dict(type='MMDistributedDataParallel')", []),
        ],
        ids=["plain", "unused parameters", "own wrapper"],
    )
    def test_options_without_gpu(self, tmp_path, config, options):
        (tmp_path / "config.py").write_text(config)
        assert launch.options_without_gpu(str(tmp_path / "config.py")) == [
            *("--cfg-options", "model_wrapper_cfg.device_ids=None"),
            *(f"model_wrapper_cfg.{option}" for option in options),
        ]


def make_package(folder, train):
    """A package with a ``train.py`` where OpenMMLab's packages have theirs."""
    tools = folder / ".mim" / "tools"
    tools.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (tools / "train.py").write_text(train)
