"""Folders of few-shot subsets: written once, never over another draw; and the tool."""

from pathlib import Path

import pytest

from dap.few_shot import make_few_shot_subsets
from tests.support.few_shot import read, write_voc


class TestWriting:
    def test_same_draw_is_kept(self, tmp_path, pets):
        (folder,) = make_few_shot_subsets(tmp_path, [2], coco=pets)
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        moved = pets.rename(tmp_path / "moved.json")
        assert make_few_shot_subsets(tmp_path, [2], coco=moved, name="pets") == [folder]
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    def test_other_draw_is_refused(self, tmp_path, pets):
        (folder,) = make_few_shot_subsets(tmp_path, [2], coco=pets)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        (tmp_path / "no.txt").write_text("3\n")
        with pytest.raises(
            FileExistsError,
            match=r"pets_2shot_seed0 holds another draw: .*in_exclude_files has 0, this draw 1\. "
            r"Nothing was written. Take another name",
        ):
            make_few_shot_subsets(tmp_path, [2], coco=pets, exclude=[tmp_path / "no.txt"])
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_nothing_is_written_where_a_later_folder_holds_another_draw(self, tmp_path, pets):
        (folder,) = make_few_shot_subsets(tmp_path / "out", [5], coco=pets)
        (folder / "annotations.json").write_text("{}")
        with pytest.raises(FileExistsError, match=r"5shot_seed0 holds another draw.*Nothing was"):
            make_few_shot_subsets(tmp_path / "out", [2, 5, 9], coco=pets)
        assert list((tmp_path / "out").iterdir()) == [folder]

    def test_changed_file_is_noticed(self, tmp_path, pets):
        (folder,) = make_few_shot_subsets(tmp_path, [2], coco=pets)
        (folder / "annotations.json").write_text("{}")
        with pytest.raises(FileExistsError, match=r"annotations\.json has other images"):
            make_few_shot_subsets(tmp_path, [2], coco=pets)

    @pytest.mark.parametrize(
        ("record", "message"),
        [("not json", "cannot read what is there"), ("[]", r"record\.json has \[\], this draw")],
    )
    def test_invalid_record_is_refused(self, tmp_path, pets, record, message):
        (folder,) = make_few_shot_subsets(tmp_path, [2], coco=pets)
        (folder / "record.json").write_text(record)
        with pytest.raises(FileExistsError, match=message):
            make_few_shot_subsets(tmp_path, [2], coco=pets)

    @pytest.mark.parametrize(
        "missing", [["record.json"], ["record.json", "VOC2007.txt"], ["annotations.json"]]
    )
    def test_unfinished_folder_is_finished(self, tmp_path, missing):
        root = write_voc(tmp_path / "VOC2007", {"1": ["cat"], "2": ["dog"]})
        (folder,) = make_few_shot_subsets(tmp_path, [2], voc=[root])
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        for name in missing:
            (folder / name).unlink()
        make_few_shot_subsets(tmp_path, [2], voc=[root])
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_file_without_a_record_is_not_overwritten(self, tmp_path, pets):
        """A folder made by hand has the same name, and no record."""
        foreign = tmp_path / "pets_2shot_seed0" / "annotations.json"
        foreign.parent.mkdir()
        foreign.write_text("{}")
        with pytest.raises(FileExistsError, match=r"annotations\.json has other images or boxes"):
            make_few_shot_subsets(tmp_path, [2], coco=pets)
        assert foreign.read_text() == "{}"
        assert list(foreign.parent.iterdir()) == [foreign]

    def test_record_is_written_last(self, tmp_path, pets, monkeypatch):
        names = []
        replace = Path.replace

        def watched(self, target):
            names.append(Path(target).name)
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", watched)
        make_few_shot_subsets(tmp_path, [2], coco=pets)
        assert names == ["annotations.json", "record.json"]


class TestTool:
    def test_writes_and_prints_the_folders(self, tmp_path, run_here):
        first = write_voc(tmp_path / "VOC2007", {"1": ["cat"], "2": ["fox"], "4": ["fox"]})
        second = write_voc(tmp_path / "VOC2012", {"3": ["cat"], "5": ["cat"]})
        (tmp_path / "no.txt").write_text("4\n")
        out = tmp_path / "out"
        done = run_here(
            *("few_shot", "--voc", first, second, "--shots", 1, 2, "--seeds", 0, 1, "--out", out),
            *("--name", "mine", "--split", "trainval", "--disjoint"),
            *("--exclude", tmp_path / "no.txt"),
        )
        assert done.returncode == 0, done.stderr
        names = [f"mine_{k}shot_seed{seed}" for seed in (0, 1) for k in (1, 2)]
        printed = [line for line in done.stdout.splitlines() if line.startswith(str(out))]
        assert printed == [str(out / name) for name in names]
        assert sorted(path.name for path in out.iterdir()) == sorted(names)
        record = read(out / "mine_2shot_seed1" / "record.json")
        assert record["disjoint_from"] == [0]
        assert record["short"] == {"cat": 1, "fox": 0}
        assert record["excluded"]["in_exclude_files"] == 1
        assert "mim train" not in done.stdout  # such a set needs a config of its own

    def test_prints_how_to_train_on_sets_of_the_paper(self, tmp_path, run_here):
        first = write_voc(tmp_path / "VOC2007", {"1": ["cat"], "2": ["fox"]})
        second = write_voc(tmp_path / "VOC2012", {"3": ["cat"]})
        out = tmp_path / "out"
        done = run_here("few_shot", "--voc", first, second, "--shots", 1, "--out", out)
        assert done.returncode == 0, done.stderr
        folder = out / "voc0712_1shot_seed0"
        printed = [line for line in done.stdout.splitlines() if line.startswith((str(out), "mim"))]
        assert printed[0] == str(folder)
        assert printed[1].startswith("mim train mmdet ")
        assert f"train_dataloader.dataset.ann_file={folder}/annotations.json" in printed[1]
        assert len(printed) == 2

    def test_error_is_one_line(self, tmp_path, run_here):
        done = run_here(
            "few_shot", "--coco", tmp_path / "none.json", "--shots", 1, "--out", tmp_path / "out"
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {tmp_path / 'none.json'}: cannot be read")
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()
