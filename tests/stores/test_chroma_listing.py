"""A listing shorter than the store is an error: what a server gives in pieces is read whole, or not at all."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import parse
from tasks.base.errors import FatalError
from tasks.checks.rows import count_checks
from tasks.planning.registry import make_plan
from tasks.runs import checkpoints
from tasks.shadows.difference import Difference
from tasks.stores.chroma import store as chroma
from tasks.stores.chroma.listing import Most, listed
from tasks.stores.interface import Collection, vectors
from tasks.stores.postgres.connection import Connection
from tests.helpers.capped_server import Capped
from tests.helpers.data import records_of
from tests.helpers.pipeline import build, finish
from tests.helpers.servers import chroma_server

ROWS = 2_300


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server with 2,300 records in one collection, and 40 small collections."""
    with chroma_server(tmp_path_factory.mktemp("served")) as server:
        store = chroma.connect(host="127.0.0.1", port=server.port)
        store.create(Collection("docs", "", 0, 4, "cosine"))
        store.write("docs", records_of(ROWS, 4))
        for number in range(40):
            store.create(Collection(f"small-{number:02d}", "", 0, 4, "l2"))
        yield server.port


@pytest.mark.parametrize(
    "limits", [{}, {"refuses_ids": True}, {"refuses": False}, {"records": 7}, {"records": 1}], ids=str
)
def test_everything_is_listed_and_read(upstream: int, limits: dict[str, Any]) -> None:
    """From a server that says how much it gives and from one that cuts its answers off, however little that is; ids that
    are not there are told from records that were cut off."""
    page = records_of(ROWS if limits.get("records", 300) > 7 else 30, 4)
    direct = chroma.connect(host="127.0.0.1", port=upstream)
    with Capped(upstream, **limits) as port:
        store = chroma.connect(host="127.0.0.1", port=port)
        name = "docs"
        if page.num_rows < ROWS:
            name = f"few-{limits['records']}"
            direct.create(Collection(name, "", 0, 4, "cosine"))
            direct.write(name, page)
        ids = store.records(name).ids().to_pylist()
        assert ids == page.column("id").to_pylist()
        fetched = store.records(name).fetch([*(f"absent-{i}" for i in range(page.num_rows)), *ids, "absent"])
        assert fetched.num_rows == page.num_rows
        order = np.argsort(fetched.column("id").to_pylist())
        np.testing.assert_allclose(vectors(fetched)[order], vectors(page), atol=1e-6)
        assert store.records(name).evidence().shown == "cosine"
        if page.num_rows < ROWS:
            direct.client.delete_collection(name)


def test_a_limit_is_found_out_once(upstream: int) -> None:
    """Once a server has said what it gives, every later request keeps to that, whoever makes it."""
    limits = Capped(upstream, refuses_ids=True)
    with limits as port:
        chroma.connect(host="127.0.0.1", port=port).records("docs").ids()
        limits.sizes.clear()
        second = chroma.connect(host="127.0.0.1", port=port)
        second.records("docs").fetch(second.records("docs").ids().to_pylist())
    assert max(limits.sizes) == 300
    assert len(limits.sizes) <= 2 * (ROWS // 299 + 2)


def test_a_run_before_such_a_server_brings_everything(connection: Connection, upstream: int) -> None:
    """All 2,300 records are in the table, and verification has counted them at the source."""
    with Capped(upstream, refuses_ids=True) as port:
        (report,) = finish(build("capped", chroma={"host": "127.0.0.1", "port": port}, collections=["docs"]))
        check = next(c for c in report.checks if c.name == "source count")
        assert (check.passed, check.result, check.wanted) == (True, "2,300 compared", "2,300")
        row = connection.execute("SELECT count(*) FROM docs").fetchone()
        assert row == (ROWS,)


@pytest.mark.parametrize("limits", [{"collections": 9}, {"collections": 9, "refuses": False}], ids=str)
def test_every_collection_is_listed(upstream: int, limits: dict[str, Any]) -> None:
    """Also where a server lists a few at a time."""
    wanted = chroma.connect(host="127.0.0.1", port=upstream).names()
    assert len(wanted) == 41
    with Capped(upstream, **limits) as port:
        assert chroma.connect(host="127.0.0.1", port=port).names() == wanted


def test_a_search_that_is_refused_says_why(upstream: int) -> None:
    """More neighbours than a server gives are an error that says so, and no error of our own."""
    with Capped(upstream) as port:
        store = chroma.connect(host="127.0.0.1", port=port)
        assert store.records("docs").search(np.ones((1, 4), np.float32), 300)[0].ids
        with pytest.raises(FatalError, match=r"Chroma at .*: 'n_results' is 301"):
            store.records("docs").search(np.ones((1, 4), np.float32), 301)


def test_a_listing_that_ends_too_early_is_an_error(connection: Connection, upstream: int) -> None:
    """Where what is behind the first 300 cannot be listed, the plan and the run say so, and nothing is made of the 300."""
    short = r"records of 'docs' at .*: only 300 of 2,300 could be listed"
    with Capped(upstream, refuses=False, deaf=True) as port:
        parameters = {"chroma": {"host": "127.0.0.1", "port": port}, "collections": ["docs"]}
        with pytest.raises(FatalError, match=short):
            make_plan(connection, parse(ChromaToPgvector, parameters).request(), "short")
        with pytest.raises(FatalError, match=short):
            build("short", **parameters)
    assert [b for b in checkpoints.batches(connection, "short") if b.status == "done"] == []


def test_verification_counts_at_the_source() -> None:
    """A comparison of fewer rows than the source counts fails; what moves while it is compared is allowed for."""

    def passed(compared: int, counted: tuple[int, int], moved: int = 0, listed: int | None = None) -> bool:
        of = Difference(compared=compared, counted=counted, listed=compared if listed is None else listed)
        (check,) = count_checks(of, None, moved)
        return check.passed

    assert passed(2_300, (2_300, 2_300))
    assert not passed(300, (2_300, 2_300))
    assert not passed(2_299, (2_300, 2_300))
    assert not passed(2_301, (2_300, 2_300))
    assert not passed(2_300, (2_300, 2_300), listed=300)
    assert passed(2_305, (2_300, 2_310))
    assert passed(2_298, (2_300, 2_300), moved=2)
    assert not passed(300, (2_300, 2_310), moved=20)
    assert count_checks(Difference(compared=5), None, 0) == []


class Changing:
    """A list that others change between two pages of it, in the order that Chroma keeps: what is new comes last."""

    def __init__(self, count: int) -> None:
        self.rows = [f"r{i}" for i in range(count)]
        self.asked = 0

    def page(self, limit: int, offset: int) -> list[str]:
        rows = self.rows[offset : offset + limit]
        self.asked += 1
        if self.asked < 30:
            del self.rows[self.asked % 7 :: 50]
            self.rows += [f"new-{self.asked}-{i}" for i in range(10)]
        return rows


@pytest.mark.parametrize("limit", [2, 13, 100])
def test_nothing_that_stays_is_missed_while_others_write(limit: int) -> None:
    """Rows that are there from beginning to end are listed, though others before them are deleted between two pages."""
    rows = Changing(1_000)
    result = listed(rows.page, lambda: len(rows.rows), Most(limit), "rows")
    assert {r for r in rows.rows if r.startswith("r")} <= set(result)
    assert len(result) == len(set(result))


def test_a_server_that_others_write_to_is_listed_whole(upstream: int) -> None:
    """Records are added and deleted while 2,300 are listed in pieces; each one that stays is in the listing."""
    direct, stop = chroma.connect(host="127.0.0.1", port=upstream), threading.Event()
    direct.create(Collection("busy", "", 0, 4, "l2"))
    direct.write("busy", records_of(ROWS, 4))

    def write() -> None:
        collection, at = direct.client.get_collection("busy", embedding_function=None), 0
        while not stop.is_set() and at < ROWS:
            collection.delete(ids=[f"row-{at:07d}"])
            collection.add(ids=[f"new-{at}"], embeddings=np.ones((1, 4), np.float32))
            at += 40

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with Capped(upstream, records=50) as port:
            ids = set(chroma.connect(host="127.0.0.1", port=port).records("busy").ids().to_pylist())
    finally:
        stop.set()
        writer.join()
    assert {f"row-{i:07d}" for i in range(ROWS) if i % 40} <= ids
    direct.client.delete_collection("busy")
