"""The command dap: quick help, the programs of tools/ by their verbs, and the next command."""

import subprocess
import sys
from pathlib import Path

import pytest

import dap_cli

ROOT = Path(__file__).resolve().parents[1]


def test_every_verb_has_its_program():
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}

    assert {program for program, _ in dap_cli.VERBS.values() if program} == tools
    assert set(dap_cli.STEPS) <= dap_cli.VERBS.keys()


def test_help_imports_nothing_heavy():
    code = (
        "import sys, dap_cli; dap_cli.main(['--help']); dap_cli.main(['finetune', '--help'])\n"
        "assert not {'torch', 'numpy', 'mmengine', 'mmdet', 'dap'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in dap_cli.VERBS)
    assert "usage: dap finetune CONFIG [CONFIG …] [--gpus N]" in done.stdout


def test_unknown_verb(capsys):
    assert dap_cli.main(["box"]) == 2
    assert "no verb 'box'; did you mean boxes" in capsys.readouterr().err


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Programs in place of the real ones."""
    monkeypatch.setattr(dap_cli, "tools_folder", lambda: tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)

    return write


def test_program_runs_as_if_called_by_its_path(tools, capsys):
    tools("generate_pseudo_boxes", "import sys\nif __name__ == '__main__': print(sys.argv[1:])")

    assert dap_cli.main(["boxes", "c.py", "w.pth", "--out", "my boxes"]) == 0
    assert capsys.readouterr().out == (
        "['c.py', 'w.pth', '--out', 'my boxes']\n\nnext: dap look 'my boxes' --maps c.py w.pth\n"
        "then: dap new-config DETECTOR 'my boxes' --finetune DATA\n"
    )


@pytest.mark.parametrize(
    ("text", "status"),
    [("sys.exit('error: no such file')", 1), ("sys.exit(3)", 3), ("sys.exit()", 0)],
)
def test_exit_status_is_the_programs(tools, capsys, text, status):
    tools("inspect_boxes", f"import sys\n{text}")

    assert dap_cli.main(["look", "boxes"]) == status
    printed = capsys.readouterr()
    assert ("next: " in printed.out) == (status == 0)
    assert ("error: no such file" in printed.err) == (status == 1)


def test_argument_errors_name_the_verb(capsys):
    assert dap_cli.main(["compare"]) == 2
    printed = capsys.readouterr()
    assert "usage: dap compare " in printed.err
    assert "next" not in printed.out


def test_next_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("cls", "dap"):
        Path(f"finetune_x_{kind}.py").touch()

    assert dap_cli.next_step("look", ["s"]) == "dap new-config DETECTOR s --finetune DATA"
    then = "\nthen: dap new-config DETECTOR s --finetune DATA"
    assert dap_cli.next_step("boxes", ["c", "w", "--out=s"]) == f"dap look s --maps c w{then}"
    assert dap_cli.next_step("boxes", ["--out", "s", "c", "w"]) == f"dap look s{then}"
    assert dap_cli.next_step("pretrain", ["pretrain_x.py"]) == (
        "dap finetune finetune_x_cls.py finetune_x_dap.py"
    )
    assert dap_cli.next_step("pretrain", ["pretrain_y.py"]) == ""
    assert dap_cli.next_step("compare", ["a", "b"]) == ""


def test_training_commands():
    configs, options, gpus = dap_cli.split_arguments(
        ["a.py", "b.py", "--amp", "--gpus", "2", "--cfg-options", "x=1"]
    )

    assert (configs, options, gpus) == (["a.py", "b.py"], ["--amp", "--cfg-options", "x=1"], 2)
    assert dap_cli.training_command("a.py", ["--amp"], 1) == (
        [sys.executable, "-m", "dap.launch", "mmdet", "train", "a.py", "--amp"]
    )
    assert dap_cli.training_command("a.py", ["--amp"], 2) == (
        ["bash", str(ROOT / "tools" / "dist.sh"), "train", "2", "a.py", "--amp"]
    )
    with pytest.raises(SystemExit, match="--gpus: found 'two', expected a number"):
        dap_cli.split_arguments(["a.py", "--gpus", "two"])


def test_work_directories(tmp_path):
    config = tmp_path / "own.py"
    config.write_text("iterations = 3\nwork_dir = 'runs/own'\n")
    other = tmp_path / "other.py"
    other.write_text("_base_ = './own.py'\n")

    assert dap_cli.work_dir(str(config)) == "runs/own"
    assert dap_cli.work_dir(str(config), ["--work-dir", "w"]) == "w"
    assert dap_cli.work_dir(str(config), ["--work-dir=w"]) == "w"
    assert dap_cli.work_dir(str(other)) == "work_dirs/other"


def test_two_configs_need_two_work_directories(capsys):
    assert dap_cli.main(["finetune", "a.py", "b.py", "--work-dir", "w"]) == 2
    assert dap_cli.main(["finetune", "a.py", "b.py", "--work-dir=w"]) == 2
    assert dap_cli.main(["pretrain", "a.py", "b.py"]) == 2
    assert capsys.readouterr().err.count("2 configs with one work directory") == 3


def test_training_that_has_not_begun_starts_from_its_weights(tmp_path, monkeypatch):
    """MMEngine's ``--resume`` ignores ``load_from`` where nothing is to be resumed."""
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text("load_from = 'weights.pth'\nwork_dir = 'runs/a'\n")
    Path("b.py").write_text("lr = 1\n")
    resume = dap_cli.resume_options

    assert resume("a.py", ["--resume", "--amp"]) == ["--amp"]
    assert resume("a.py", ["--amp", "--resume"]) == ["--amp"]
    assert resume("a.py", ["--resume", "x.pth"]) == ["--resume", "x.pth"]
    assert resume("b.py", ["--resume"]) == ["--resume"]
    given = ["--cfg-options", "load_from=w.pth", "--resume"]
    assert resume("b.py", given) == given[:2]
    Path("runs/a").mkdir(parents=True)
    Path("runs/a/last_checkpoint").write_text("iter_3.pth")
    assert resume("a.py", ["--resume"]) == ["--resume"]
    assert resume("a.py", ["--resume", "--work-dir=other"]) == ["--work-dir=other"]


def test_pair_is_trained_and_compared(tmp_path, monkeypatch, tools, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(f"{name}.py").write_text(f"work_dir = 'runs/{name}'\n")
    tools("compare", "import sys\nprint('compared', sys.argv[1:])")
    calls = []

    def run(command, env):
        calls.append(command[-1])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(dap_cli.subprocess, "run", run)
    assert dap_cli.main(["finetune", "a.py", "b.py"]) == 0
    assert calls == ["a.py", "b.py"]
    assert "compared ['runs/a', 'runs/b']" in capsys.readouterr().out


def test_failed_training_ends_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = subprocess.CompletedProcess([], 7)
    monkeypatch.setattr(dap_cli.subprocess, "run", lambda command, env: done)

    assert dap_cli.main(["finetune", "a.py", "b.py"]) == 7
