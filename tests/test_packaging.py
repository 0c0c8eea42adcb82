import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml

import dap

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked; hatchling stands in the dev group, so that this needs no network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = folder.glob("dap-*.whl")
    assert archive.name.startswith(f"dap-{dap.__version__}-")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder / "unpacked")
    return folder / "unpacked"


def broken_paths(mim):
    """Paths that model-index.yml or a metafile names and that are not there.

    Args:
        mim: Folder with model-index.yml, to which all paths are relative.
    """
    metafiles = yaml.safe_load((mim / "model-index.yml").read_text())["Import"]
    broken = [path for path in metafiles if not (mim / path).is_file()]
    for metafile in set(metafiles) - set(broken):
        for path in named_paths(yaml.safe_load((mim / metafile).read_text())):
            if not (mim / path).is_file():
                broken.append(f"{metafile}: {path}")
    return broken


def named_paths(node):
    if isinstance(node, list):
        for child in node:
            yield from named_paths(child)
    elif isinstance(node, dict):
        for key, child in node.items():
            if key in ("Config", "README") and "://" not in child:
                yield child
            else:
                yield from named_paths(child)


def test_wheel_holds_the_package_and_what_mim_looks_for(wheel):
    held = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    for folder, target in (("dap", "dap"), ("tools", "dap/.mim/tools")):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".sh", ".txt"):
                name = f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
                assert name.replace("dap/mmcv_ops/_ext", "mmcv/_ext") in held
    assert "dap/.mim/model-index.yml" in held
    assert "dap/images/imagenet_1k_wordnet_ids.txt" in held
    assert any(path.startswith("dap/.mim/configs/") and path.endswith(".py") for path in held)


def test_wheel_holds_nothing_else(wheel):
    tops = {path.name for path in wheel.iterdir()}
    assert tops == {"dap", "dap_cli.py", "mmcv", f"dap-{dap.__version__}.dist-info"}
    assert {path.name for path in (wheel / "mmcv").iterdir()} == {"_ext.py", "_ext_torch"}
    parts = {part for path in wheel.rglob("*") for part in path.relative_to(wheel).parts}
    assert not parts & {"tests", "test", "__pycache__", "work_dirs", "data", "shared"}
    suffixes = {path.suffix for path in wheel.rglob("*") if path.is_file()}
    assert suffixes <= {"", ".jinja", ".md", ".py", ".sh", ".txt", ".yml"}


def test_wheel_says_its_licence(wheel):
    (info,) = wheel.glob("dap-*.dist-info")
    for name in ("LICENSE", "NOTICE"):
        assert (info / "licenses" / name).read_bytes() == (ROOT / name).read_bytes()
    metadata = (info / "METADATA").read_text()
    for line in ("License-Expression: Apache-2.0", "Author: DAP contributors"):
        assert f"\n{line}\n" in metadata


def test_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == dap.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["preferred-citation"]["title"] in (ROOT / "README.md").read_text()
    assert "2103.16651" in citation["preferred-citation"]["url"]


def test_command_dap_of_the_wheel_has_the_tools_of_the_wheel(wheel, tmp_path):
    entries = (wheel / f"dap-{dap.__version__}.dist-info" / "entry_points.txt").read_text()
    assert "[console_scripts]\ndap = dap_cli:main\n" in entries
    code = "import dap_cli; print(dap_cli.__file__, dap_cli.tools_folder())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(wheel)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(wheel / "dap_cli.py"), str(wheel / "dap/.mim/tools")]


def test_mim_finds_each_config_by_its_name(wheel):
    names = Counter(path.name for path in (wheel / "dap/.mim/configs").rglob("*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_path_in_the_metafiles_exists(wheel):
    assert broken_paths(wheel / "dap/.mim") == []


def test_every_metafile_is_imported(wheel):
    mim = wheel / "dap/.mim"
    metafiles = {path.relative_to(mim).as_posix() for path in mim.rglob("metafile.yml")}
    assert set(yaml.safe_load((mim / "model-index.yml").read_text())["Import"]) == metafiles


def test_broken_paths_are_seen(tmp_path):
    (tmp_path / "model-index.yml").write_text("Import: [a/metafile.yml, b/metafile.yml]")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/good.py").touch()
    (tmp_path / "a/metafile.yml").write_text(
        "Collections: [{Name: A, README: a/README.md}]\n"
        "Models:\n"
        "- {Name: good, Config: a/good.py, Weights: https://x.org/a.pth}\n"
        "- {Name: bad, Config: a/bad.py, Downstream: [{Config: https://x.org/a.py}]}\n"
        "- {Name: worse, Config: a/good.py, Downstream: [{Config: a/worse.py}]}\n"
    )
    assert sorted(broken_paths(tmp_path)) == [
        "a/metafile.yml: a/README.md",
        "a/metafile.yml: a/bad.py",
        "a/metafile.yml: a/worse.py",
        "b/metafile.yml",
    ]


def test_tools_of_the_wheel_take_the_configs_of_the_wheel(wheel, tmp_path):
    """What reproduce.py prints names files inside the installed package."""
    tool = wheel / "dap/.mim/tools/reproduce.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(tool), "table6", "--only", "cls-in1k", "--dry-run"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(wheel)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = wheel / "dap/.mim/configs/finetune/coco/retinanet_r50-cls-in1k_fpn_90k_coco.py"
    train, test = (line for line in done.stdout.splitlines() if not line.startswith("#"))
    assert train.startswith(f"python -m dap.launch mmdet train {config} ")
    assert test.startswith(f"python -m dap.launch mmdet test {config} ")
