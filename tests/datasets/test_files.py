"""dap.files: lists, folders with links, and files that are written whole or not at all."""

import os

import pytest

from dap.files import files_below, output_file, read_lines, read_names, whole_file


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


class TestFilesBelow:
    def test_links_to_folders_inside_are_not_walked_twice(self, tmp_path):
        root = tmp_path / "root"
        touch(root / "z" / "1.jpg", root / "a" / "2.JPG", root / "no.txt")
        (root / "a" / "again").symlink_to(root / "z")
        (root / "b").symlink_to(root / "z")
        (root / "z" / "loop").symlink_to(root)
        assert files_below(root, (".jpg",)) == ["a/2.JPG", "z/1.jpg"]

    def test_folder_outside_is_followed_once(self, tmp_path):
        root = tmp_path / "root"
        touch(root / "1.jpg", tmp_path / "other" / "deep" / "2.jpg")
        (root / "x").symlink_to(tmp_path / "other")
        (root / "y").symlink_to(tmp_path / "other")
        (tmp_path / "other" / "back").symlink_to(root)
        assert files_below(root, (".jpg",)) == ["1.jpg", "x/deep/2.jpg"]

    def test_root_may_be_a_link(self, tmp_path):
        touch(tmp_path / "real" / "a" / "1.jpg")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert files_below(tmp_path / "link", (".jpg",)) == ["a/1.jpg"]


class TestLists:
    def test_bom_blanks_and_empty_lines(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfcat \r\n\r\n traffic light\n")
        assert read_lines(tmp_path / "a.txt") == ["cat", "traffic light"]
        assert read_names(tmp_path / "a.txt") == ["cat", "traffic light"]

    @pytest.mark.parametrize("reader", [read_lines, read_names])
    def test_errors_name_the_file(self, tmp_path, reader):
        (tmp_path / "a.txt").write_text("cat\n", encoding="utf-16")
        with pytest.raises(ValueError, match=r"a\.txt is no text"):
            reader(tmp_path / "a.txt")
        with pytest.raises(FileNotFoundError, match=r"b\.txt: cannot be read"):
            reader(tmp_path / "b.txt")


class TestWholeFile:
    def write(self, path, *texts, **settings):
        with whole_file(path, **settings) as file:
            for text in texts:
                file.write(text)

    def test_failure_leaves_nothing(self, tmp_path):
        with pytest.raises(TypeError):
            self.write(tmp_path / "a", "half", None)
        assert list(tmp_path.iterdir()) == []

    def test_failure_leaves_the_earlier_file(self, tmp_path):
        self.write(tmp_path / "a", "whole")
        with pytest.raises(TypeError):
            self.write(tmp_path / "a", "half", None)
        assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]

    def test_two_processes_do_not_write_to_one_file(self, tmp_path, monkeypatch):
        with whole_file(tmp_path / "a") as first:
            first.write("first")
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: 1)
                self.write(tmp_path / "a", "second, and longer")
            assert (tmp_path / "a").read_text() == "second, and longer"
        assert [path.read_text() for path in tmp_path.iterdir()] == ["first"]

    def test_once(self, tmp_path):
        path = tmp_path / "new" / "a"
        self.write(path, "text", once=True)
        before = path.stat()
        self.write(path, "text", once=True)
        with pytest.raises(FileExistsError, match="a is there with other content"):
            self.write(path, "other", once=True)
        after = path.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert [item.read_text() for item in path.parent.iterdir()] == ["text"]
        self.write(path, "other")
        assert path.read_text() == "other"


def test_output_file(tmp_path):
    assert output_file(str(tmp_path / "a")) == tmp_path / "a"
    with pytest.raises(IsADirectoryError, match="is a folder; expected the name of a file"):
        output_file(tmp_path)
