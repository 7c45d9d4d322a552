"""Files below a directory, and references that lead out of it."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tasks.base.errors import FatalError
from tasks.contents.image.local import Directory
from tasks.embedders.interface import RowError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """With a file in it, and a secret beside it."""
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "a b.jpg").write_bytes(b"picture")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "secret").write_bytes(b"secret")
    return tmp_path / "root"


def kind(result: bytes | RowError) -> str:
    assert isinstance(result, RowError)
    return result.kind


def test_files_are_read_by_their_names(root: Path) -> None:
    """Whatever characters they have; through links that stay within; by a path that is absolute and lies within."""
    source = Directory(str(root), 100)
    (root / "link").symlink_to(root / "sub")
    (root / "ü#?%20.jpg").write_bytes(b"odd")
    for reference in ("sub/a b.jpg", "./sub/../sub/a b.jpg", "link/a b.jpg", str(root / "sub/a b.jpg")):
        assert source.read(reference) == b"picture"
    assert source.read("ü#?%20.jpg") == b"odd"


def test_a_root_that_is_a_link_is_followed(root: Path, tmp_path: Path) -> None:
    """It is the user's own."""
    (tmp_path / "current").symlink_to(root)
    assert Directory(str(tmp_path / "current"), 100).read("sub/a b.jpg") == b"picture"


@pytest.mark.parametrize(
    "reference",
    [
        "../secret",
        "sub/../../secret",
        "/etc/passwd",
        "../root2/secret",
        "out",
        "far/secret",
        "sub/../out",
        "/proc/self/environ",
    ],
)
def test_a_reference_that_leads_out_of_the_root_is_refused(root: Path, tmp_path: Path, reference: str) -> None:
    """By dots, as an absolute path, by links to files and to folders, into a folder whose name begins alike."""
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "far").symlink_to(tmp_path)
    assert kind(Directory(str(root), 100).read(reference)) == "escapes"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["..", ".", "", "sub", "out", "far", "secret", "root2", "root", "a b.jpg", "~", "C:", "%2e%2e"])
    ).map("/".join)
)
def test_no_reference_reads_what_is_outside(root: Path, tmp_path: Path, reference: str) -> None:
    """Whatever it is put together from."""
    for name, target in {"out": tmp_path / "secret", "far": tmp_path}.items():
        if not (root / name).is_symlink():
            (root / name).symlink_to(target)
    result = Directory(str(root), 100).read(reference or ".")
    assert isinstance(result, RowError) or result == b"picture"


def test_what_is_no_file_is_missing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a pipe, which is not waited for, a socket, a name that is too long."""
    source = Directory(str(root), 100)
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)  # the name of a socket may not be long
        listener.bind("socket")
    assert kind(source.read("pipe")) == "missing"
    assert kind(source.read("sub")) == "missing"
    assert kind(source.read("gone.jpg")) == "missing"
    assert kind(source.read("sub/a b.jpg/x")) == "missing"
    assert kind(source.read("x" * 300)) == "missing"
    assert kind(source.read("socket")) == "missing"
    (root / "loop").symlink_to("loop")
    assert kind(source.read("loop")) == "escapes"


def test_what_is_too_large_is_not_read(root: Path) -> None:
    """The limit is the most that is read; a hole of a gigabyte takes no memory."""
    with open(root / "hole", "wb") as file:
        file.truncate(1 << 30)
    result = Directory(str(root), 1 << 20).read("hole")
    assert kind(result) == "too_large"
    assert "1,073,741,824 bytes" in str(result)
    assert Directory(str(root), 7).read("sub/a b.jpg") == b"picture"
    assert kind(Directory(str(root), 6).read("sub/a b.jpg")) == "too_large"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_denied(root: Path) -> None:
    """As the operating system says."""
    (root / "mine.jpg").write_bytes(b"x")
    (root / "mine.jpg").chmod(0)
    assert kind(Directory(str(root), 100).read("mine.jpg")) == "denied"


def test_a_root_that_is_not_there_stops_everything(tmp_path: Path) -> None:
    """A disk that is not mounted is no million missing pictures."""
    with pytest.raises(FatalError, match="there is no directory"):
        Directory(str(tmp_path / "gone"), 100).read("a.jpg")
    (tmp_path / "there").mkdir()
    source = Directory(str(tmp_path / "there"), 100)
    assert kind(source.read("a.jpg")) == "missing"
    (tmp_path / "there").rmdir()
    with pytest.raises(FatalError, match="is gone"):
        source.read("a.jpg")
