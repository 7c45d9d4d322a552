"""Timed searches take a bounded part of a run: on a busy database what is only shown is cut, and what decides is not."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pytest

from flows.chroma_to_pgvector import chroma_to_pgvector
from tasks.checks import searches as search_checks
from tasks.checks.timed_search import Allowance, timed
from tasks.runs.figures import worked
from tasks.runs.run import open_run
from tasks.stores.interface import Hits
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection

PROBES = np.eye(20, dtype=np.float32)


@contextmanager
def busy(url: str) -> Iterator[None]:
    """Somebody else asks the database for something all the while."""
    stop = threading.Event()

    def ask() -> None:
        with psycopg.connect(url, autocommit=True, application_name="the application") as connection:
            while not stop.wait(0.2):
                connection.execute("SELECT 1")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join()


def slow(probes: np.ndarray) -> list[Hits]:
    time.sleep(0.05)
    return [Hits(["a"], np.zeros(1)) for _ in probes]


def test_searches_end_when_their_time_is_over() -> None:
    """So many as there is time for, in the order of the probes."""
    result = timed(slow, PROBES, time.monotonic() + 0.5, 2)
    assert 2 < len(result.hits) == len(result.seconds) < len(PROBES)
    assert result.latency.searches == len(result.hits)


def test_the_least_number_is_searched_whatever_it_takes() -> None:
    """A gate is never decided by fewer searches; there can be fewer only where there are fewer probes."""
    assert len(timed(slow, PROBES, 0.0, 7).hits) == 7
    assert len(timed(slow, PROBES[:3], 0.0, 7).hits) == 3


def test_an_allowance_grows_with_the_run() -> None:
    """A share of what the rest of the run took, and its seconds at least."""
    allowed = Allowance(share=0.1, seconds=5.0, probes=10)
    for spent, seconds in ((0, 5), (40, 5), (600, 60)):
        assert allowed.until(spent) - time.monotonic() == pytest.approx(seconds, abs=1)


def test_rests_beside_others_count(database: str, connection: Connection) -> None:
    """On a busy database the time is over sooner, since each search is followed by a rest."""
    with busy(database), pace.giving_way(database, 0.2):
        time.sleep(0.3)  # until somebody else has been seen
        result = timed(slow, PROBES, time.monotonic() + 1.5, 2, pace.turns(connection))
    assert 2 <= len(result.hits) <= 8, "of 20 that take 1 s alone"


@pytest.mark.usefixtures("prefect")
def test_workers_beside_each_other_worked_once(connection: Connection, chroma_dir: Callable[..., str]) -> None:
    """Three batches of half a minute at the same time took half a minute of the run."""
    chroma_to_pgvector(chroma={"path": chroma_dir(count=60)}, batch_rows=20, run_id="beside", gates={"min_recall": 0.5})
    connection.execute("UPDATE vecferry.batch SET seconds = 30, updated_at = now() WHERE stage = 'load'")
    assert 30 <= worked(open_run("beside", "DATABASE_URL")) < 60


@pytest.fixture
def fewer_searches() -> None:
    """Not here: as many as ever."""


@pytest.mark.usefixtures("prefect")
def test_what_is_only_shown_is_cut_and_the_gates_are_not(
    database: str, chroma_dir: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without time for it the sweep of ef_search stops at its least and the report says so; recall, parity and distances
    look at as many probes as ever. With time for it, nothing is said."""
    reports = tmp_path / "home" / "runs"
    monkeypatch.setattr(search_checks, "GATED", Allowance(share=0, seconds=600.0, probes=200))
    monkeypatch.setattr(search_checks, "SHOWN", Allowance(share=0, seconds=0.0, probes=10))
    asked, until = list[int](), Allowance.until
    monkeypatch.setattr(Allowance, "until", lambda self, worked: asked.append(self.probes) or until(self, worked))
    path = chroma_dir(count=300, dimensions=16)
    assert chroma_to_pgvector(chroma={"path": path}, run_id="short")["state"] == "verified"
    (target,) = json.loads((reports / "short" / "report.json").read_text())["targets"]
    looked_at = {check["name"]: check["looked_at"] for check in target["checks"]}
    assert looked_at["recall@10"] == looked_at["query parity"] == 200
    assert target["benchmark"]["source"]["searches"] == 200
    searches = {line["ef_search"]: line["searches"] for line in target["benchmark"]["sweep"]}
    own = target["benchmark"]["ef_search"]
    assert searches == {ef: 200 if ef == own else 10 for ef in (40, 100, 200, 400)}
    assert target["benchmark"]["exact"]["searches"] == 1
    assert asked == [200, 10, 200], "what is only shown has one time for all of it"
    assert "only 430 of 1,000 timed searches were made, so that" in " ".join(target["notes"])
    assert "(10 of 200 searches)" in (reports / "short" / "report.html").read_text()

    monkeypatch.setattr(search_checks, "SHOWN", Allowance(share=0, seconds=600.0, probes=10))
    chroma_to_pgvector(chroma={"path": path}, run_id="whole")
    whole = (reports / "whole" / "report.html").read_text()
    assert "timed searches" not in whole
    assert "200 searches" not in whole
