"""dap.files: lists, folders with links, and files that are written whole or not at all."""

import errno
import multiprocessing
import os
import stat

import pytest

from dap.files import files_below, output_file, read_lines, read_names, whole_file, write_bytes


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


class TestFlushing:
    """A file is finished where the file system cannot flush it, and not where the disk fails."""

    @pytest.fixture(params=[write_bytes, lambda path, content: write_text(path, content.decode())])
    def write(self, request):
        return request.param

    def refuse(self, monkeypatch, name, number, of_folder):
        """Let a function of ``os`` fail for folders, or for files."""
        function = getattr(os, name)

        def refusing(target, *args):
            mode = os.stat(target).st_mode if os.path.exists(target) else 0
            if stat.S_ISDIR(mode) == of_folder:
                raise OSError(number, os.strerror(number))
            return function(target, *args)

        monkeypatch.setattr(os, name, refusing)

    @pytest.mark.parametrize("number", ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"])
    @pytest.mark.parametrize("of_folder", [False, True])
    def test_not_supported(self, tmp_path, monkeypatch, write, number, of_folder):
        self.refuse(monkeypatch, "fsync", getattr(errno, number), of_folder)
        write(tmp_path / "a", b"whole")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]

    def test_folder_that_was_opened_to_read_alone(self, tmp_path, monkeypatch, write):
        self.refuse(monkeypatch, "fsync", errno.EBADF, True)
        write(tmp_path / "a", b"whole")
        assert (tmp_path / "a").read_bytes() == b"whole"

    @pytest.mark.parametrize("number", ["EISDIR", "EACCES", "EPERM"])
    def test_folder_that_may_not_be_opened(self, tmp_path, monkeypatch, write, number):
        self.refuse(monkeypatch, "open", getattr(errno, number), True)
        write(tmp_path / "a", b"whole")
        assert (tmp_path / "a").read_bytes() == b"whole"

    @pytest.mark.parametrize("number", ["EIO", "ENOSPC", "EDQUOT"])
    @pytest.mark.parametrize("of_folder", [False, True])
    def test_disk_that_fails(self, tmp_path, monkeypatch, write, number, of_folder):
        """The folder is flushed after the file has its name."""
        self.refuse(monkeypatch, "fsync", getattr(errno, number), of_folder)
        with pytest.raises(OSError, match=r"a cannot be written \("):
            write(tmp_path / "a", b"whole")
        assert [path.name for path in tmp_path.iterdir()] == ["a"] * of_folder

    def test_file_has_no_other_excuse(self, tmp_path, monkeypatch, write):
        self.refuse(monkeypatch, "fsync", errno.EBADF, False)
        with pytest.raises(OSError, match=r"a cannot be written \(Bad file descriptor"):
            write(tmp_path / "a", b"whole")

    def test_folder_that_may_be_written_and_not_read(self, tmp_path):
        folder = tmp_path / "out"
        folder.mkdir()
        folder.chmod(0o333)
        for parent in tmp_path.parents[:3] if os.geteuid() == 0 else ():
            parent.chmod(parent.stat().st_mode | 0o011)
        tmp_path.chmod(0o755)
        child = multiprocessing.get_context("fork").Process(target=write_unread, args=(folder,))
        child.start()
        child.join(60)
        folder.chmod(0o755)
        assert child.exitcode == 0
        assert [path.read_bytes() for path in folder.iterdir()] == [b"whole"]


def write_text(path, text):
    with whole_file(path) as file:
        file.write(text)


def write_unread(folder):
    if os.geteuid() == 0:  # root may read everything
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    with pytest.raises(PermissionError):
        os.listdir(folder)
    write_bytes(folder / "a", b"whole")
