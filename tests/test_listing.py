"""dap.listing: which files a listing takes, and that it names what it leaves out."""

import os
import random

import cv2
import numpy as np
import pytest

import dap.listing
from dap.files import IMAGE_SUFFIXES, files_below
from dap.listing import FileListing, starts_like_image


def touch(root, *names, content=b""):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def list_images(root):
    listing = FileListing(str(root), IMAGE_SUFFIXES, IMAGE_SUFFIXES)
    return listing, listing.files()


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".webp", ".gif", ".jpe", ".avif", ".jp2"])
def test_opencv_reads_the_kinds_of_files_in_the_list(suffix):
    if suffix in (".gif", ".avif") and not cv2.haveImageWriter(f"x{suffix}"):
        pytest.skip(f"this build of OpenCV has no {suffix}")
    assert suffix in IMAGE_SUFFIXES
    image = np.zeros((32, 48, 3), np.uint8)
    assert cv2.imdecode(cv2.imencode(suffix, image)[1], cv2.IMREAD_COLOR).shape == (32, 48, 3)


def test_other_images_are_counted_by_suffix(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/2.HEIC", "b/3.heic", "b/4.svg", "b/notes.txt", "b/list")
    listing, files = list_images(tmp_path)
    assert files == ["a/1.jpg"]
    assert listing.listed == 1
    assert listing.not_taken.counts == {".heic": 2, ".svg": 1}
    assert listing.not_taken.example == "a/2.HEIC"
    assert listing.other_files.counts == {".txt": 1, "without suffix": 1}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".tiff", ".bmp", ".jp2"])
def test_images_under_other_names_are_found_by_their_first_bytes(tmp_path, suffix):
    content = cv2.imencode(suffix, np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    touch(tmp_path, "a", "b.jpg!large", "c.1", content=content)
    touch(tmp_path, "d", "e.txt", content=b"BMW and other text, of which a bitmap begins like this")
    listing, files = list_images(tmp_path)
    assert files == []
    assert listing.not_taken.counts == {"without suffix": 1, ".jpg!large": 1, ".1": 1}
    assert listing.other_files.counts == {"without suffix": 1, ".txt": 1}


def test_only_some_files_are_looked_into(tmp_path, monkeypatch):
    monkeypatch.setattr(dap.listing, "MAX_INSPECTED", 5)
    monkeypatch.setattr(dap.listing, "MAX_INSPECTED_PER_SUFFIX", 3)
    touch(tmp_path, *(f"{i}.x" for i in range(9)), content=b"\xff\xd8\xff")
    touch(tmp_path, *(f"{i}.y" for i in range(9)), content=b"\xff\xd8\xff")
    listing, _ = list_images(tmp_path)
    assert sorted(listing.not_taken.counts.values()) == [2, 3]
    assert listing.other_files.total == 13


def test_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not starts_like_image(str(tmp_path / "pipe"))
    assert list_images(tmp_path)[1] == []


def test_tally_of_very_many_suffixes_stays_small(tmp_path):
    touch(tmp_path, *(f"a.{i}" for i in range(150)))
    listing, _ = list_images(tmp_path)
    assert listing.other_files.total == 150
    assert len(listing.other_files.counts) == 101
    assert listing.other_files.counts["others"] == 50


def test_hidden_names_and_leftovers_are_skipped_at_every_depth(tmp_path, capsys):
    touch(tmp_path, "a/1.jpg", "a/._1.jpg", ".git/x.jpg", "a/b/.ipynb_checkpoints/x.jpg")
    touch(tmp_path, "a/Thumbs.db", "__MACOSX/a/1.jpg", "$RECYCLE.BIN/x.jpg", "a/@eaDir/x.jpg")
    touch(tmp_path, "lost+found/x.jpg", "a/desktop.ini", "a/b/2.jpg")
    assert files_below(tmp_path, IMAGE_SUFFIXES) == ["a/1.jpg", "a/b/2.jpg"]
    output = capsys.readouterr().out
    assert "INFO" in output
    assert f"{tmp_path}: skipped hidden names and leftovers of systems: 9 (hidden 3" in output
    assert "such as '$RECYCLE.BIN'" in output


def test_what_is_left_out_is_logged_and_nothing_else(tmp_path, capsys):
    touch(tmp_path, "a/1.jpg", "a/2.heic", "a/3.txt")
    touch(tmp_path / "plain", "1.jpg")
    files_below(tmp_path / "plain", IMAGE_SUFFIXES)
    assert capsys.readouterr().out == ""
    files_below(tmp_path / "a", IMAGE_SUFFIXES)
    first, second = capsys.readouterr().out.splitlines()
    assert "WARNING" in first
    assert "files that look like images and are not taken: 1 (.heic 1), such as '2.heic'" in first
    assert "other files, which are not taken: 1 (.txt 1), such as '3.txt'" in second
    assert "files that were opened: 1" in second
    files_below(tmp_path, (".xml",))
    assert capsys.readouterr().out == ""


def test_dangling_links_are_listed_and_folders_named_like_images_are_folders(tmp_path, capsys):
    touch(tmp_path, "x.jpg/1.png")
    (tmp_path / "2.jpg").symlink_to("/nowhere/2.jpg")
    (tmp_path / "3.png").symlink_to("3.png")  # leads to itself
    (tmp_path / "4").symlink_to("/nowhere/4")
    assert files_below(tmp_path, IMAGE_SUFFIXES) == ["2.jpg", "3.png", "x.jpg/1.png"]
    output = capsys.readouterr().out
    assert "dangling links: 3" in output
    assert "such as '2.jpg' -> '/nowhere/2.jpg'" in output


def test_link_to_a_file_is_a_file(tmp_path):
    touch(tmp_path, "other/1.dat", content=b"x")
    touch(tmp_path, "root/2.jpg")
    (tmp_path / "root" / "1.jpg").symlink_to(tmp_path / "other" / "1.dat")
    assert files_below(tmp_path / "root", IMAGE_SUFFIXES) == ["1.jpg", "2.jpg"]


class TestLinksToFolders:
    def test_cycles_list_nothing_twice(self, tmp_path):
        """Links to the folder itself, to one above, and two folders that link to each other."""
        touch(tmp_path, "root/a/1.jpg", "root/b/2.jpg")
        root = tmp_path / "root"
        (root / "a" / "self").symlink_to(".")
        (root / "a" / "up").symlink_to("..")
        (root / "a" / "above").symlink_to(tmp_path)
        (root / "a" / "b").symlink_to(root / "b")
        (root / "b" / "a").symlink_to(root / "a")
        listing, files = list_images(root)
        assert files == ["a/1.jpg", "b/2.jpg"]
        assert listing.not_followed.total == 5
        assert listing.files("a") == ["a/1.jpg"]
        assert listing.files("b") == ["b/2.jpg"]

    def test_cycles_outside_of_the_root(self, tmp_path):
        touch(tmp_path, "pool/cat/1.jpg", "pool/dog/2.jpg", "more/3.jpg", "root/x.txt")
        (tmp_path / "pool" / "cat" / "more").symlink_to(tmp_path / "more")
        (tmp_path / "more" / "back").symlink_to(tmp_path / "pool")
        (tmp_path / "root" / "cat").symlink_to(tmp_path / "pool" / "cat")
        listing = FileListing(str(tmp_path / "root"), IMAGE_SUFFIXES)
        assert listing.files("cat") == ["cat/1.jpg", "cat/more/3.jpg"]

    def test_hidden_folder_is_listed_where_a_link_leads_to_it(self, tmp_path):
        touch(tmp_path, ".store/cat/1.jpg", "cat/2.jpg")
        (tmp_path / "cat" / "more").symlink_to(tmp_path / ".store" / "cat")
        assert list_images(tmp_path)[1] == ["cat/2.jpg", "cat/more/1.jpg"]

    def test_link_above_the_root_is_no_folder_of_it(self, tmp_path):
        touch(tmp_path, "root/a/1.jpg")
        (tmp_path / "root" / "loop").symlink_to(tmp_path)
        (tmp_path / "root" / "b").symlink_to(tmp_path / "root" / "a")
        assert FileListing(str(tmp_path / "root"), IMAGE_SUFFIXES).top() == (["a", "b"], [])


def test_folder_that_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone: the folder cannot be listed \(No such"):
        FileListing(str(tmp_path), IMAGE_SUFFIXES).files("gone")


def test_names_that_are_no_text_are_listed(tmp_path):
    name = os.fsdecode(b"\xff.jpg")
    touch(tmp_path, name, os.fsdecode(b"\xff.heic"))
    assert files_below(tmp_path, IMAGE_SUFFIXES) == [name]


def test_random_trees_equal_what_a_plain_walk_gives(tmp_path):
    """Without links and hidden names, the listing is all files with the suffixes, sorted."""
    rng = random.Random(0)
    for _ in range(60):
        depth = rng.randrange(4)
        path = "/".join(rng.choice("ab") + rng.choice(" .-x") for _ in range(depth))
        touch(tmp_path, f"{path or '.'}/{rng.randrange(99)}{rng.choice(['.jpg', '.PNG', '.txt'])}")
    expected = sorted(
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
    )
    assert len(expected) > 20
    assert files_below(tmp_path, IMAGE_SUFFIXES) == expected
