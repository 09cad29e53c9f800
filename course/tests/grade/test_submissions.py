"""Reading what was handed in: hostile archives and folders fail for their learner, with the reason."""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile

import pytest

from tinypress_course.errors import CourseError
from tinypress_course.grade.submission import ignored_marks, mark_of, read_marks, read_submissions

MODULE = "10_compression"
WORK = "import torch\n"


def card(learner="ada", module=MODULE, **more):
    return json.dumps({"format": 1, "learner": learner, "module": module, **more})


def pack(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)


def only(folder):
    (read,) = read_submissions(folder, MODULE)
    return read


def test_a_zip_a_folder_and_a_folder_in_a_zip_are_read_alike(tmp_path):
    pack(
        tmp_path / "x.zip", {"submission.json": card("Ada"), "compression_dev.py": WORK, "journal.json": "{}"}
    )
    pack(tmp_path / "bob.zip", {"bob/compression_dev.py": WORK, "bob/notes.txt": "unread"})
    (tmp_path / "cleo").mkdir()
    (tmp_path / "cleo" / "compression_dev.ipynb").write_text("{}")
    (tmp_path / "README.txt").write_text("no submission")
    ada, bob, cleo = read_submissions(tmp_path, MODULE)
    assert (ada.learner, dict(ada.files)["compression_dev.py"]) == ("Ada", WORK)
    assert (bob.learner, set(bob.files), bob.failure) == ("bob", {"compression_dev.py"}, "")
    assert (cleo.learner, cleo.work) == ("cleo", "compression_dev.ipynb")


def test_no_folder_and_an_empty_one_are_refused(tmp_path):
    with pytest.raises(CourseError, match="no such folder"):
        read_submissions(tmp_path / "none", MODULE)
    with pytest.raises(CourseError, match="no submissions"):
        read_submissions(tmp_path, MODULE)


def bomb(path):
    pack(path, {"compression_dev.py": b"#" * (50 << 20)})
    assert path.stat().st_size < 100_000


def lying_bomb(path):
    """The same with a size in its directory that says nothing of it."""
    bomb(path)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (100).to_bytes(4, "little")
    path.write_bytes(content)


def link(path):
    entry = zipfile.ZipInfo("compression_dev.py")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(entry, "/etc/passwd")


def twice(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("compression_dev.py", "a = 1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("compression_dev.py", "a = 2")


def cut(path):
    pack(path, {"compression_dev.py": os.urandom(5000).hex()})
    path.write_bytes(path.read_bytes()[:3000])


def changed(path):
    pack(path, {"compression_dev.py": os.urandom(5000).hex()})
    content = bytearray(path.read_bytes())
    content[500:520] = bytes(20)
    path.write_bytes(content)


def many(path):
    pack(path, {f"{n}.txt": "" for n in range(1001)} | {"compression_dev.py": WORK})


def unusual(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("compression_dev.py", WORK)


def encrypted(path):
    pack(path, {"compression_dev.py": WORK})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


BROKEN = {
    "a bomb": (bomb, "larger than 1024 KiB"),
    "a bomb that lies": (lying_bomb, ""),
    "a link": (link, "is a link"),
    "two of one name": (twice, "holds compression_dev.py 2 times"),
    "cut short": (cut, "the archive is broken"),
    "changed bytes": (changed, "the archive is broken"),
    "too many": (many, "holds 1002 entries"),
    "unusual compression": (unusual, "unusual way"),
    "encrypted": (encrypted, "encrypted"),
    "no archive": (lambda path: path.write_text("PK"), "the archive is broken"),
    "empty": (lambda path: pack(path, {}), "no compression_dev.py"),
    "outside": (lambda p: pack(p, {"../compression_dev.py": WORK}), "a place outside itself"),
    "absolute": (lambda p: pack(p, {"/compression_dev.py": WORK}), "a place outside itself"),
    "windows": (lambda p: pack(p, {"..\\a.py": "", "compression_dev.py": WORK}), "a place outside itself"),
    "not UTF-8": (lambda p: pack(p, {"compression_dev.py": b"\xff\xfe"}), "is not UTF-8"),
    "another module": (
        lambda p: pack(p, {"submission.json": card(module="09_training"), "compression_dev.py": WORK}),
        "for the module 09_training",
    ),
    "another format": (
        lambda p: pack(p, {"submission.json": card(format=2), "compression_dev.py": WORK}),
        "format 2",
    ),
    "no card": (
        lambda p: pack(p, {"submission.json": "[" * 100_000, "compression_dev.py": WORK}),
        "submission.json",
    ),
    "a name that steers": (
        lambda p: pack(p, {"submission.json": card("a\x1b[2Jb"), "compression_dev.py": WORK}),
        "cannot be printed",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_archive_fails_alone(kind, tmp_path):
    make, said = BROKEN[kind]
    make(tmp_path / "bad.zip")
    pack(tmp_path / "good.zip", {"compression_dev.py": WORK})
    bad, good = read_submissions(tmp_path, MODULE)
    assert bad.failure
    assert said in bad.failure
    assert bad.files == {}
    assert not good.failure


def test_links_and_pipes_in_folders_are_not_followed(tmp_path):
    outside = tmp_path / "outside.py"
    outside.write_text(WORK)
    submissions = tmp_path / "submissions"
    for name in ("a", "b"):
        (submissions / name).mkdir(parents=True)
    (submissions / "a" / "compression_dev.py").symlink_to(outside)
    os.mkfifo(submissions / "b" / "compression_dev.py")
    (submissions / "c").symlink_to(submissions / "a")
    a, b, c = read_submissions(submissions, MODULE)
    assert "link" in a.failure
    assert "is no file" in b.failure
    assert "is a link" in c.failure


def test_two_of_one_learner_fail_together(tmp_path):
    for name, learner in (("1", "Ada"), ("2", "ada"), ("3", "bob")):
        pack(tmp_path / f"{name}.zip", {"submission.json": card(learner), "compression_dev.py": WORK})
    first, second, bob = read_submissions(tmp_path, MODULE)
    assert first.failure == second.failure == "2 submissions bear this name: 1.zip, 2.zip"
    assert not bob.failure
    assert first.key != second.key


def test_marks_are_read_and_checked(tmp_path):
    assert read_marks(tmp_path) == {}
    path = tmp_path / "marks.csv"
    path.write_text("learner,mark\nAda,0.75\nnobody,1\n", encoding="utf-8-sig")
    marks = read_marks(tmp_path)
    assert mark_of(marks, "ADA") == 0.75
    assert mark_of(marks, "bob") is None
    assert ignored_marks(marks, ["ada"]) == ("nobody",)
    for wrong, line in (("learner,mark\na,2\n", 2), ("learner,mark\na,1\nA,1\n", 3), ("who,mark\na,1\n", 2)):
        path.write_text(wrong)
        with pytest.raises(CourseError, match=f"line {line}"):
            read_marks(tmp_path)
    path.write_text("learner,mark\na,nan\n")
    with pytest.raises(CourseError, match="line 2"):
        read_marks(tmp_path)


def test_a_zip_file_that_claims_to_be_enormous_is_not_read(tmp_path):
    with (tmp_path / "big.zip").open("wb") as file:
        file.truncate(65 << 20)
    assert "larger than 64 MiB" in only(tmp_path).failure


def test_equal_work_has_one_key_and_other_work_another(tmp_path):
    pack(tmp_path / "a.zip", {"compression_dev.py": WORK})
    first = only(tmp_path).key
    assert only(tmp_path).key == first
    buffer = io.BytesIO()
    pack(buffer, {"compression_dev.py": WORK + "x = 1\n"})
    (tmp_path / "a.zip").write_bytes(buffer.getvalue())
    assert only(tmp_path).key != first


@pytest.mark.parametrize("name", [".", "./.", ""])
def test_an_archive_with_an_odd_name_in_it_hurts_nobody_else(tmp_path, name):
    (tmp_path / "alice.zip").write_bytes(b"broken")
    with zipfile.ZipFile(tmp_path / "mallory.zip", "w") as file:
        file.writestr(zipfile.ZipInfo(name), "x")
    read = read_submissions(tmp_path, "10_compression")
    assert [each.learner for each in read] == ["alice", "mallory"]
    assert all(each.failure for each in read)


def test_a_name_that_is_no_text_is_written_as_one(tmp_path):
    (tmp_path / os.fsdecode(b"\xff\xfe.zip")).write_bytes(b"x")
    (read,) = read_submissions(tmp_path, "10_compression")
    assert read.failure
    (read.learner + read.source + read.failure).encode()


def test_a_pipe_does_not_hold_the_grading_up(tmp_path):
    os.mkfifo(tmp_path / "bob.zip")
    (read,) = read_submissions(tmp_path, "10_compression")
    assert "no file" in read.failure
