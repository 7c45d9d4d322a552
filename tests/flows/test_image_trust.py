"""The images of a live table while others play up: a host that gives some of them only, a long transaction on the table."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest

from flows.catch_up import catch_up
from flows.clip_to_megadescriptor import clip_to_megadescriptor
from flows.cutover import cutover
from flows.rollback import rollback
from tasks.base.errors import BatchesFailed, TransientError
from tasks.contents.image import content, sources
from tasks.contents.image.opening import Opening
from tasks.contents.image.patience import Patience
from tasks.contents.image.web import Web
from tasks.runs import ledger
from tasks.shadows.postgres import superseded
from tasks.stores.postgres import locking
from tasks.stores.postgres.connection import Connection
from tests.helpers import live_images
from tests.helpers.counting import counted
from tests.helpers.image_host import (
    Answer,
    ImageHost,
    cut_off,
    dripping_head,
    elsewhere,
    endless,
    file,
    image_host,
    late,
    silent,
    status,
)
from tests.helpers.sampling import sampled
from tests.helpers.servers import free_port

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture
def reports(connection: Connection, tmp_path: Path) -> live_images.Reports:
    made = live_images.Reports(tmp_path / "files")
    made.make(connection, 40)
    return made


@pytest.fixture
def host(reports: live_images.Reports) -> Iterator[ImageHost]:
    """It has the images of all reports."""
    with image_host() as running:
        for path, versions in reports.versions.items():
            running.put(f"/{quote(path)}", versions[-1])
        yield running


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may take a second and a half, and its next byte half of one; what fails is tried three times, soon, and a host that is
    down while others are well waited for a second."""

    def web(*given: Any, **more: Any) -> Web:
        return Web(*given, patience=Patience(3, 0.01), seconds=1.5, silence=0.5, **more)

    monkeypatch.setattr(sources, "Web", web)
    monkeypatch.setattr(content, "Opening", partial(Opening, outage=1.0))


def over_http(reports: live_images.Reports, host: ImageHost, **more: Any) -> dict[str, Any]:
    """Parameters of the flow; the host is listed by one of its names."""
    images = {"root": f"http://localhost:{host.port}", "allow_hosts": [f"localhost:{host.port}"], "max_bytes": 100_000}
    return {**live_images.parameters(reports), "images": images, "old_embedder": None, "batch_rows": 10, **more}


def set_aside(reports: live_images.Reports, run_id: str) -> list[dict[str, Any]]:
    """As the run's folder has them."""
    paths = (reports.folder.parent / "home" / "runs" / run_id).glob("quarantine/**/*.parquet")
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def quarantined(reports: live_images.Reports, run_id: str) -> dict[int, str]:
    """Row → class."""
    return {int(row["id"]): row["class"] for row in set_aside(reports, run_id)}


def put(connection: Connection, id: int, path: str) -> None:
    connection.execute("INSERT INTO reports (id, image_path) VALUES (%s, %s)", (id, path))


TROUBLES: dict[str, tuple[Callable[[bytes], list[Answer]], str | None]] = {
    "slow": (lambda data: [late(0.3, file(data))], None),
    "busy": (lambda data: [status(429, retry_after="1"), status(429), file(data)], None),
    "shaky": (lambda data: [status(500), cut_off(data[:20]), file(data)], None),
    "gone": (lambda data: [status(404)], "missing"),
    "private": (lambda data: [status(403)], "denied"),
    "broken": (lambda data: [status(500)], "unavailable"),
    "mute": (lambda data: [silent(1.0)], "unavailable"),
    "page": (lambda data: [file(b"<!doctype html><p>Sign in", "text/html")], "page"),
    "inner": (lambda data: [elsewhere("http://127.0.0.1:1/secret")], "forbidden"),
    "metadata": (lambda data: [elsewhere("http://169.254.169.254/latest/meta-data/")], "forbidden"),
    "endless": (lambda data: [endless(bytes(10_000))], "too_large"),
    "dripping": (lambda data: [endless(b"x", 0.02)], "too_slow"),
    "endless-head": (lambda data: [dripping_head(0.02)], "too_slow"),
}
"""Name → what the host answers, and the class of the row; None where it gets its vector."""


@pytest.mark.usefixtures("hasty")
def test_a_host_that_plays_up(connection: Connection, reports: live_images.Reports, host: ImageHost) -> None:
    """Each row whose image is not to be had is set aside by its class with the host's words, no batch is left over, and all other rows
    get their vectors; each is asked for no longer than it may take."""
    data = reports.versions[reports.file()][-1]
    for n, (name, (answers, _)) in enumerate(TROUBLES.items()):
        host.put(f"/{name}.png", *answers(data))
        put(connection, 100 + n, f"{name}.png")
    bad = {100 + n: kind for n, (_, kind) in enumerate(TROUBLES.values()) if kind}
    given = over_http(reports, host, cutover="auto", gates={"max_quarantined": len(bad)})
    result = clip_to_megadescriptor(**given, run_id="r")
    assert result["state"] == "cut_over"
    assert quarantined(reports, "r") == bad
    rows = connection.execute("SELECT id, embedding::text FROM reports WHERE embedding IS NOT NULL").fetchall()
    vectors = {id: np.array(text[1:-1].split(","), np.float32) for id, text in rows}
    good = {100 + n for n in range(len(TROUBLES))} - bad.keys()
    assert vectors.keys() == {*range(40), *good}
    for id in good:
        assert np.allclose(vectors[id], live_images.vector_of(data, None, live_images.NEW), atol=1e-5)
    assert "says 500; tried 3 times, while localhost gives other images" in str(set_aside(reports, "r"))


@pytest.mark.whole
@pytest.mark.usefixtures("hasty")
def test_a_host_that_is_down_leaves_its_batches(
    connection: Connection, reports: live_images.Reports, host: ImageHost
) -> None:
    """No row is set aside for it, the batches of other rows are done, and started again the run asks for the rest alone."""
    missing = list(reports.versions)[20:30]  # one batch
    for path in missing:
        host.put(f"/{quote(path)}", status(503))
    with pytest.raises(BatchesFailed, match=r"1 batch failed in load: 2 .*says 503; tried 3 times"):
        clip_to_megadescriptor(**over_http(reports, host), run_id="r")
    assert quarantined(reports, "r") == {}
    for path in missing:
        host.put(f"/{quote(path)}", reports.versions[path][-1])
    assert clip_to_megadescriptor(**over_http(reports, host), run_id="r")["state"] == "verified"
    assert reports.faults(connection) == []
    assert counted(reports.folder.parent / "home").twice == []


@pytest.mark.usefixtures("hasty")
def test_a_host_that_is_dead_for_good(connection: Connection, reports: live_images.Reports, host: ImageHost) -> None:
    """With several images in a batch: while other hosts give theirs its rows are set aside, with its name, and no batch is left over."""
    dead = f"http://127.0.0.1:{free_port()}"
    connection.execute("UPDATE reports SET image_path = %s || image_path", (f"http://localhost:{host.port}/",))
    connection.execute("UPDATE reports SET image_path = %s || id WHERE id IN (3, 4, 5, 14, 15, 30)", (f"{dead}/",))
    given = over_http(reports, host, images=beside(host, dead))
    result = clip_to_megadescriptor(**given, run_id="r", gates={"max_quarantined": 10})
    assert result["state"] == "verified"
    assert quarantined(reports, "r") == dict.fromkeys([3, 4, 5, 14, 15, 30], "unavailable")
    told = [row["message"] for row in set_aside(reports, "r") if int(row["id"]) < 20]
    assert all("127.0.0.1 gave no image for 1 s, while localhost gave its images" in line for line in told)


@pytest.mark.whole
@pytest.mark.usefixtures("hasty")
def test_a_batch_of_a_host_that_is_dead_for_good(
    connection: Connection, reports: live_images.Reports, host: ImageHost
) -> None:
    """One that has its images alone fails, and is named with the host and what reruns it."""
    dead = f"http://127.0.0.1:{free_port()}"
    connection.execute("UPDATE reports SET image_path = %s || id", (f"{dead}/",))
    given = over_http(reports, host, images=beside(host, dead))
    with pytest.raises(
        BatchesFailed, match=r"4 batches failed in load: .*127\.0\.0\.1: .*refused.*vecferry rerun alone"
    ):
        clip_to_megadescriptor(**given, run_id="alone")


def beside(host: ImageHost, dead: str) -> dict[str, Any]:
    """Images by their addresses, at both hosts."""
    return {"root": "https://", "allow_hosts": [f"localhost:{host.port}", dead.removeprefix("http://")]}


@pytest.mark.usefixtures("hasty")
def test_one_that_comes_late_is_judged_by_those_that_come_with_it(
    connection: Connection, reports: live_images.Reports, host: ImageHost
) -> None:
    """Catching up sets a new row aside that its host never gives, and brings the others."""
    clip_to_megadescriptor(**over_http(reports, host), run_id="r")
    host.put("/bad.png", status(500))
    host.put("/good.png", reports.versions[reports.file()][-1])
    put(connection, 100, "bad.png")
    put(connection, 101, "good.png")
    catch_up(run_id="r")
    there = connection.execute("SELECT id FROM reports WHERE id >= 100 AND embedding_megadescriptor IS NOT NULL")
    assert there.fetchall() == [(101,)]


READS, WRITES = "SELECT count(*) FROM reports", "UPDATE reports SET seen = 1 WHERE id = 1"


@pytest.mark.parametrize("use", sampled([READS, WRITES]))
def test_a_long_transaction_at_the_cutover(
    connection: Connection, database: str, reports: live_images.Reports, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """The cutover tries for a while, then says who uses the table and how that is ended, and has changed nothing; once they are done,
    it goes through."""
    clip_to_megadescriptor(**live_images.parameters(reports), run_id="r")
    before = looks(connection)
    monkeypatch.setattr(locking, "LOCK_TRIES", 3)
    with psycopg.connect(database, application_name="a long report") as other:
        other.execute(use.encode())
        holder = (
            rf"process {other.info.backend_pid} of \S+ \(a long report\), idle in transaction for .*, uses .*reports"
        )
        with pytest.raises(
            TransientError, match=rf"{holder}.*: SELECT pg_terminate_backend\({other.info.backend_pid}\)"
        ):
            cutover(run_id="r")
        assert looks(connection) == before
        assert ledger.get(connection, "r").state == "verified"
        monkeypatch.setattr(locking, "LOCK_TRIES", 200)
        threading.Timer(1.5, partial(other.rollback)).start()
        assert cutover(run_id="r")["state"] == "cut_over"
    assert looks(connection) != before
    assert reports.faults(connection) == []


@pytest.mark.parametrize("use", sampled([READS, WRITES], WRITES))
def test_a_long_transaction_holds_no_switch_beside_the_table_up(
    connection: Connection, database: str, reports: live_images.Reports, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """No column changes its name there, so nobody is waited for: the switch and its way back go through while the table is used."""
    clip_to_megadescriptor(**live_images.parameters(reports), layout="side_table", run_id="r")
    before = looks(connection)
    monkeypatch.setattr(locking, "LOCK_TRIES", 3)
    monkeypatch.setattr(superseded, "WAIT", 0.2)
    with psycopg.connect(database, application_name="a long report") as other:
        other.execute(use.encode())
        assert cutover(run_id="r")["state"] == "cut_over"
        assert looks(connection) != before
        assert rollback(run_id="r")["state"] == "rolled_back"
        assert looks(connection) == before


def looks(connection: Connection) -> list[Any]:
    """The columns of the table and the functions of the application."""
    columns = "SELECT attname::text, atttypmod FROM pg_attribute WHERE attrelid = 'reports'::regclass AND attnum > 0"
    functions = (
        "SELECT pg_get_functiondef(oid), pg_get_userbyid(proowner), proacl::text FROM pg_proc "
        "WHERE proname IN ('match_reports', 'update_report_embedding') ORDER BY proname"
    )
    return [connection.execute(query).fetchall() for query in (columns, functions)]  # type: ignore[call-overload]
