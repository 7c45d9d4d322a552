"""A Chroma directory is read from a private copy: it stays as it is, whoever wrote it and whatever happens to us."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest

from tasks.base.errors import UsageError
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.stores.chroma import copy_folders, private_copy, store as chroma
from tasks.stores.interface import vectors
from tasks.stores.postgres.connection import Connection
from tests.helpers.chroma_directories import VERSIONS, Old, fingerprint, unpacked
from tests.helpers.data import records_of
from tests.helpers.pipeline import build, finish

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VECFERRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def old(tmp_path: Path) -> Old:
    """A directory of 0.4.24, which no later version can give back to it."""
    return unpacked("0.4.24", tmp_path / "old")


def read(path: Path, home: Path, **options: Any) -> chroma.ChromaStore:
    return chroma.read(path=str(path), home=str(home), **options)


def copies(home: Path) -> list[Path]:
    """The folders of private copies there are."""
    return [p for p in (home / copy_folders.FOLDER).glob("*") if p.is_dir()]


def planned(path: Path, **parameters: Any) -> Planned:
    from flows.forms.chroma_to_pgvector import ChromaToPgvector
    from flows.forms.form import parse
    from tasks.runs.database import database_url
    from tasks.stores.postgres.connection import connect

    form = parse(ChromaToPgvector, {"chroma": {"path": str(path)}, **parameters})
    with connect(database_url(form.database)) as connection:
        return make_plan(connection, form.request(), "planned")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_leaves_every_file_as_it_was(connection: Connection, tmp_path: Path, version: str) -> None:
    """Of whichever version a directory is, planning changes no byte of it, and puts no file beside the others."""
    old = unpacked(version, tmp_path / "old")
    before = fingerprint(old.path)
    result = planned(old.path)
    assert not result.problems
    assert {t.collection.name: t.collection.count for t in result.plan.targets} == {
        name: len(of["rows"]) for name, of in old.truth.items()
    }
    size = sum(p.stat().st_size for p in old.path.rglob("*") if p.is_file())
    assert result.copied_bytes == size, "the plan says how large the copy is"
    assert fingerprint(old.path) == before


@pytest.mark.parametrize("version", ["0.4.24", "1.0.20"])
def test_a_run_leaves_every_file_as_it_was_and_brings_what_is_in_them(
    connection: Connection, tmp_path: Path, version: str
) -> None:
    """Snapshot, load, catching up, verification and switch read the copy; rows and vectors are those of the old version,
    from its segments and its queue."""
    old = unpacked(version, tmp_path / "old")
    before = fingerprint(old.path)
    finish(build("all", chroma={"path": str(old.path)}, collections=["old-l2", "old-ip"]))
    assert fingerprint(old.path) == before
    for table, name in (("old_l2", "old-l2"), ("old_ip", "old-ip")):
        rows = connection.execute(f"SELECT id, document, metadata, embedding::real[] FROM {table}").fetchall()
        wanted = old.truth[name]["rows"]
        assert {r[0]: (r[1], r[2]) for r in rows} == {i: (w["document"], w["metadata"]) for i, w in wanted.items()}
        for i, _, _, embedding in rows:
            np.testing.assert_array_equal(np.float32(embedding), np.float32(wanted[i]["embedding"]))


def test_only_what_is_read_is_copied(old: Old, home: Path) -> None:
    """The database, and the vector segments of the collections that are named."""
    few = read(old.path, home, collections=["old-l2"])
    assert few.copy
    inside = sorted(p.name for p in Path(few.copy.folder).iterdir())
    assert len(inside) == 2
    assert "chroma.sqlite3" in inside
    everything = read(old.path, home)
    assert everything.copied_bytes > few.copied_bytes
    assert len(few.records("old-l2").fetch(few.records("old-l2").ids().to_pylist())) == len(old.truth["old-l2"]["rows"])


def test_one_copy_serves_a_process_until_the_source_changes(chroma_dir: Callable[..., str], home: Path) -> None:
    """As long as nothing changed the same copy is read; a change is seen by who looks anew, not in the middle of a pass;
    the old copy goes when nobody reads it."""
    path = Path(chroma_dir(count=20))
    first = read(path, home)
    assert read(path, home).copy is first.copy
    chroma.connect(path=str(path)).write("docs", records_of(5, start=500))
    assert read(path, home, fresh=False).copy is first.copy
    second = read(path, home)
    assert (first.records("docs").count(), second.records("docs").count()) == (20, 25)
    assert len(first.records("docs").fetch(first.records("docs").ids().to_pylist())) == 20
    assert len(copies(home)) == 2
    del first
    assert [str(c) for c in copies(home)] == [second.copy.folder if second.copy else ""]


def test_a_directory_that_may_not_be_written(old: Old, home: Path) -> None:
    """A directory on read-only media, or of another user, is read all the same."""
    for path in [*old.path.rglob("*"), old.path]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    store = read(old.path, home)
    assert store.records("old-l2").count() == len(old.truth["old-l2"]["rows"])


PROCESS = """
import sys, time
from tasks.stores.chroma import store as chroma
store = chroma.read(path=sys.argv[1], home=sys.argv[2])
print(store.copy.folder, flush=True)
time.sleep(float(sys.argv[3]))
"""


def process(path: Path, home: Path, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROCESS, str(path), str(home), str(seconds)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


def test_copies_go_with_their_process_or_at_the_next_start(old: Old, home: Path) -> None:
    """A process that ends removes its copy; what a killed one left goes at the next start, while that of a process that
    lives stays."""
    before = fingerprint(old.path)
    ends, lives, killed = (process(old.path, home, seconds) for seconds in (0, 60, 60))
    try:
        folders = [Path(p.stdout.readline().strip()) for p in (ends, lives, killed) if p.stdout]
        killed.send_signal(signal.SIGKILL)
        assert killed.wait(10) == -signal.SIGKILL
        assert ends.wait(30) == 0
        assert [f.is_dir() for f in folders] == [False, True, True]
        copy_folders.remove_left(str(home))
        assert [f.is_dir() for f in folders] == [False, True, False]
        lives.terminate()
        lives.wait(10)
        copy_folders.remove_left(str(home))
        assert not home.exists() or not list(home.rglob("*"))
    finally:
        for p in (ends, lives, killed):
            p.kill()
            p.wait()
    assert fingerprint(old.path) == before


def test_no_room_for_the_copy(old: Old, home: Path) -> None:
    """It is said before anything is copied: how much is needed, where, and what to do."""
    segment = next(p for p in old.path.glob("*/data_level0.bin"))
    os.truncate(segment, 3 << 40)
    with pytest.raises(UsageError, match=r"needs 3,298,.* MB in .*/chroma-copies, where .* MB is free.*VECFERRY_HOME"):
        read(old.path, home)
    assert not home.exists(), "nothing is left of the attempt"


SPILL = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
if sys.argv[2] == "wal":
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("UPDATE embedding_metadata SET string_value = 'committed' WHERE string_value = 'text 0'")
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE embedding_metadata SET string_value = 'half done' || hex(zeroblob(2000)) WHERE key = 'chroma:document'")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_directory_whose_writer_was_killed_in_a_transaction(old: Old, home: Path, mode: str) -> None:
    """The copy is put right as SQLite would put it right, from the journal beside it; the source keeps its journal."""
    database = old.path / "chroma.sqlite3"
    subprocess.run([sys.executable, "-c", SPILL, str(database), mode], check=False)
    left = {"delete": "chroma.sqlite3-journal", "wal": "chroma.sqlite3-wal"}[mode]
    assert (old.path / left).stat().st_size
    before = fingerprint(old.path)
    documents = read(old.path, home).records("old-l2").fetch(["r0", "r3"]).column("document").to_pylist()
    assert sorted(documents) == (["text 0", "text 3"] if mode == "delete" else ["committed", "text 3"])
    assert fingerprint(old.path) == before


WRITER = """
import sys, time, numpy as np, chromadb
collection = chromadb.PersistentClient(sys.argv[1]).get_collection("docs", embedding_function=None)
rng, n, until = np.random.default_rng(1), 0, time.time() + 4
while time.time() < until:
    collection.upsert(ids=[f"w{n + i}" for i in range(20)], embeddings=rng.normal(size=(20, 8)).tolist())
    n += 20
    if n == 20:
        print("started", flush=True)
print(n, flush=True)
"""


def test_an_application_that_goes_on_writing(chroma_dir: Callable[..., str], home: Path) -> None:
    """Each copy is of one moment, vectors and records of the same; the application does not notice."""
    path = Path(chroma_dir(count=20))
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "started\n"
        counts = []
        while writer.poll() is None and len(counts) < 5:
            store = read(path, home)
            ids = store.records("docs").ids().to_pylist()
            fetched = store.records("docs").fetch(ids)
            assert fetched.num_rows == len(ids) == store.records("docs").count()
            assert fetched.column("embedding").null_count == 0
            assert np.isfinite(vectors(fetched)).all()
            counts.append(len(ids))
        out, err = writer.communicate(timeout=120)
    assert writer.returncode == 0, err
    assert counts == sorted(counts)
    assert counts[-1] > counts[0], "nothing was written meanwhile"
    assert read(path, home).records("docs").count() == 20 + int(out)


def test_a_plan_on_the_command_line_leaves_nothing(
    old: Old, home: Path, database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """`vecferry plan` writes nothing: not at the source, and its copy is gone when it has answered."""
    before = fingerprint(old.path)
    command = [str(Path(sys.executable).parent / "vecferry"), "plan", "chroma-to-pgvector", "--json"]
    text = subprocess.run(
        [*command, "-p", f"chroma.path={old.path}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert json.loads(text.stdout)["copied_bytes"] > 100_000
    assert not home.exists()
    assert fingerprint(old.path) == before


def test_a_database_that_cannot_be_read(old: Old, home: Path) -> None:
    """What is no database any more is named, and nothing is left of the attempt."""
    with (old.path / "chroma.sqlite3").open("r+b") as handle:
        handle.truncate(5_000)
    with pytest.raises(UsageError, match=r"chroma\.sqlite3 cannot be read: "):
        read(old.path, home)
    assert not home.exists()


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/bin/mount"), reason="mounting a small disk takes root")
def test_a_home_without_room_is_not_the_only_place(old: Old, tmp_path: Path) -> None:
    """Where the home has no room, the copy lies beside other temporary files, and the home is left alone."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        store = read(old.path, small)
        assert store.copy
        assert not Path(store.copy.folder).is_relative_to(small)
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_end_that_waits_for_nobody_removes_copies_too(old: Old, home: Path) -> None:
    """After Ctrl-C a process ends from within: its copy goes before it, read or not."""
    store = read(old.path, home)
    assert store.copy
    assert copies(home)
    copy_folders.remove_own()
    assert not home.exists()


def test_a_run_reads_the_copy_that_its_plan_made(tmp_path: Path, chroma_dir: Callable[..., str]) -> None:
    """A plan of all collections copies the directory once, and what a run names of them is in it."""
    home, path = str(tmp_path / "home"), chroma_dir(count=20)
    wanted = private_copy.Wanted(path, "default_tenant", "default_database", None)
    whole = private_copy.copy_of(wanted, home, fresh=True)
    assert private_copy.copy_of(replace(wanted, collections=frozenset({"docs"})), home, fresh=True) is whole


def test_a_client_that_migrates_reads_nothing(old: Old, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of Chroma's that knew the tables before they were migrated made one start in sixty panic: the client that
    is read by finds them migrated."""
    opened, make = [], chromadb.PersistentClient

    def client(path: str, **options: Any) -> Any:
        with closing(sqlite3.connect(Path(path) / "chroma.sqlite3")) as database:
            opened.append(database.execute("SELECT count(*) FROM migrations").fetchone())
        return make(path=path, **options)

    monkeypatch.setattr(chromadb, "PersistentClient", client)
    store = read(old.path, home)
    assert sum(store.records(name).count() for name in store.names())
    assert store.copy
    with closing(sqlite3.connect(Path(store.copy.folder) / "chroma.sqlite3")) as database:
        assert opened[-1] == database.execute("SELECT count(*) FROM migrations").fetchone() != opened[0]
