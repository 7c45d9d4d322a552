"""Directories whose names mean something in a URL: a home and a source are where the user says."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tasks.base import files
from tasks.base.errors import UsageError
from tasks.stores.postgres import embedded

Vecferry = Callable[..., tuple[int, str, str]]
NAME = "a#1?b=%41::~c é[d]"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[str]:
    """A home without a space in its path, in which the embedded PostgreSQL may have run."""
    yield str(tmp_path / "a#1?b=%41::é[d]" / "home")
    embedded.stop()


@pytest.mark.usefixtures("prefect")
def test_a_whole_run(
    vecferry: Vecferry, chroma_dir: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plan, run, cutover and restore in such directories, and nothing is written beside them."""
    place = tmp_path / NAME
    place.mkdir()
    os.rename(chroma_dir(count=30), place / "chroma")
    monkeypatch.setenv("VECFERRY_HOME", str(place / "home"))
    source = ("chroma-to-pgvector", "-p", f"chroma.path={place / 'chroma'}")
    for command in (
        ("plan", *source),
        ("run", *source, "--run-id", "r", "-p", "cutover=auto"),
        ("status", "r"),
        ("restore", "r", "--into", str(place / "restored")),
        ("restore", "r", "--into", str(place / "lines"), "--format", "jsonl"),
    ):
        status, _, err = vecferry(*command)
        assert status == 0, err
    assert (place / "lines" / "docs.jsonl").read_bytes().count(b"\n") == 30
    assert sorted(p.name for p in place.iterdir()) == ["chroma", "home", "lines", "restored"]
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("name", [NAME, "memory::x", "~", "*"])
def test_files_lie_where_they_are_meant(name: str, tmp_path: Path) -> None:
    """A path without ``://`` is one of this machine, whatever its characters."""
    path = files.join(str(tmp_path), name, "part")
    files.write(path, b"1")
    assert (tmp_path / name / "part").read_bytes() == b"1"
    assert files.exists(path)
    assert files.read(path) == b"1"
    assert files.names(os.path.dirname(path)) == ["part"]
    with files.open_seekable(path) as handle:
        assert handle.read() == b"1"


def test_the_embedded_server_answers(home: str) -> None:
    """The socket is in the home, and its URL leads there."""
    with psycopg.connect(embedded.url(home)) as connection:
        assert connection.execute("SELECT current_setting('data_directory')").fetchone() == (f"{home}/postgres",)


def test_the_embedded_server_refuses_what_a_shell_takes_apart(tmp_path: Path) -> None:
    """A home with a space is named before anything is written, with the way out."""
    with pytest.raises(UsageError, match=r"cannot run in .*/a b/postgres.*DATABASE_URL"):
        embedded.url(str(tmp_path / "a b"))
    assert not (tmp_path / "a b").exists()
