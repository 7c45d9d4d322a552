"""A run keeps to the VECFERRY_HOME that it was begun with: what it bought lies there, and would be bought again elsewhere."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.cutover import cutover
from flows.rollback import rollback
from flows.verify import verify
from tasks.base.errors import UsageError
from tasks.runs import home, ledger
from tasks.stores.postgres.connection import Connection

pytestmark = pytest.mark.usefixtures("prefect")


def test_another_home_is_refused(
    connection: Connection, chroma_dir: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on and switching are refused with what to set, and nothing is touched; a rollback needs no files."""
    source = {"path": chroma_dir(count=20)}
    chroma_to_pgvector(chroma=source, run_id="r")
    for other in ("empty", "used"):
        monkeypatch.setenv("VECFERRY_HOME", str(tmp_path / other))
        if other == "used":
            home.named(str(tmp_path / other))
        for verb in (
            lambda: chroma_to_pgvector(chroma=source, run_id="r"),
            lambda: cutover(run_id="r"),
            lambda: verify(run_id="r"),
        ):
            with pytest.raises(UsageError, match=f"set VECFERRY_HOME to that one.*{tmp_path}/{other}/home.id"):
                verb()
    assert ledger.get(connection, "r").state == "verified"
    assert rollback(run_id="r")["state"] == "rolled_back"


def test_a_home_in_another_place_is_the_same(
    connection: Connection, chroma_dir: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known by a name in it, and not by where it lies."""
    chroma_to_pgvector(chroma={"path": chroma_dir(count=20)}, run_id="r")
    shutil.copytree(tmp_path / "home", tmp_path / "moved", ignore=shutil.ignore_patterns("chroma-copies"))
    monkeypatch.setenv("VECFERRY_HOME", str(tmp_path / "moved"))
    assert cutover(run_id="r")["state"] == "cut_over"


def test_those_who_name_a_home_at_once_agree(tmp_path: Path) -> None:
    """The first name stays, whoever comes at the same moment."""
    for number in range(20):
        together, place = Barrier(4), str(tmp_path / str(number))

        def name(place: str = place, together: Barrier = together) -> str:
            together.wait()
            return home.named(place)

        with ThreadPoolExecutor(4) as pool:
            names = {future.result() for future in [pool.submit(name) for _ in range(4)]}
        assert names == {home.identity(place)}
