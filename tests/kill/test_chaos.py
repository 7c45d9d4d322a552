"""What happens to a run when its process is killed, doubled or interrupted, or its database goes away."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.helpers.memory import memory_folder
from tests.helpers.qdrant_application import LIVES, Application
from tests.helpers.qdrant_server import qdrant_server
from tests.helpers.qdrant_writers import KINDS
from tests.helpers.sampling import sampled
from tests.kill import chaos_live, chaos_qdrant
from tests.kill.chaos import TARGETS, Disturbed, attempt, cycle, steps
from tests.kill.chroma_source import make_source
from tests.kill.moments import RUN, stage_of
from tests.kill.pictures import differences, picture
from tests.kill.processes import Place, new_database, postgres_server
from tests.kill.subjects import SUBJECTS

SHORT = ("run", "cutover")
"""Steps of the sample; `make chaos` goes through all."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = make_source(tmp_path_factory.mktemp("source"), rows=300, dimensions=16)
    made.reset()
    return made


@pytest.fixture
def place(prefect_url: str, postgres: Callable[[str], str], tmp_path: Path) -> Callable[[str], Place]:
    """Makes a database and a home of the name."""

    def make(name: str) -> Place:
        database = f"{name}_{tmp_path.name}"[:60]
        new_database(postgres("postgres"), database)
        return Place(postgres(database), tmp_path / name, prefect_url)

    return make


def reached(place: Place, process: Any, stage: str) -> None:
    """Waits until the run that ``process`` makes is in ``stage``."""
    with place.connection() as connection:
        row = connection.execute("SELECT now() - interval '1 minute'").fetchone()
        assert row
        while process.poll() is None:
            try:
                if stage_of(connection, RUN, "run", row[0], TARGETS) == stage:
                    return
            except psycopg.errors.UndefinedTable:
                pass  # no ledger yet
            time.sleep(0.005)
    raise AssertionError(f"it ended before {stage}: {place.log}")


def test_a_killed_run_ends_as_an_undisturbed_one(
    place: Callable[[str], Place], source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` in several stages, restarted each time: rows, vectors, keys, indexes, ledger and files are the same."""
    monkeypatch.setattr("tests.kill.chaos.COLD", 0)  # the installed command is started below
    life = [step for step in steps(source.path, batch_rows=60) if step.name in SHORT]
    chaos = Disturbed(random.Random(5))
    cycle(chaos, place("undisturbed"), life, source, 0, print)
    cycle(chaos, place("killed"), life, source, 3, print)
    assert chaos.different == []
    assert chaos.kills.total() >= 2
    assert chaos.compared == len(life)


@pytest.mark.whole
def test_the_kill_test_notices_faults(place: Callable[[str], Place], source: Any) -> None:
    """A lost row, a twin, a flipped component, a changed hash, a lost index, a leftover table and a batch that was
    marked before its rows were written are all reported."""
    here = place("planted")
    run = steps(source.path, batch_rows=20)[0]
    chaos = Disturbed(random.Random(5))
    # The mark first and the rows never: what a ledger outside the rows' transaction would leave after a kill.
    early = (
        "import tasks.shadows.postgres.new_table as place; place.copy_records = lambda *a: None; "
        "import sys; from flows.command.main import main; main()"
    )
    with open(here.home.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", early, *run.arguments], env=here.environment, stdout=log, stderr=log
        )
        try:
            reached(here, process, "index")
        finally:
            process.kill()
            process.wait()
    assert attempt(chaos, here, run, None)
    assert chaos.different == ["run: catch up had to repair 330 rows of an unchanged source"]

    before = picture(here)
    assert differences(before, before) == []
    shadow = next(name for name in before if name.startswith("rows of vecferry.docs__")).removeprefix("rows of ")
    hnsw = next(name for name in before["indexes"] if "docs_hnsw" in name)
    key = next(name for name in before["indexes"] if "docs_pkey" in name).removeprefix("vecferry.")
    one, two, three, four = (f"WHERE id = 'row-000000{n}'" for n in range(1, 5))
    faults = {
        f"DELETE FROM {shadow} {one}": "row-0000001 is missing",
        f"UPDATE {shadow} SET embedding = array_replace(embedding::real[], (embedding::real[])[5], 0.5)::vector {two}": (
            "row-0000002 is …"
        ),
        f"UPDATE {shadow} SET content_hash = sha256('') {three}": "row-0000003 is …",
        f"ALTER TABLE {shadow} DROP CONSTRAINT {key}; INSERT INTO {shadow} SELECT * FROM {shadow} {four}": (
            "row-0000004 (2) should not be there"
        ),
        f"DROP INDEX {hnsw}": f"{hnsw} is missing",
        "CREATE TABLE vecferry.forgotten (id int)": "vecferry.forgotten should not be there",
        "UPDATE vecferry.batch SET status = 'pending' WHERE stage = 'load' AND batch = 2": "load 2 is …",
    }
    for plant, fault in faults.items():
        with psycopg.connect(here.url) as connection:
            connection.execute(plant)  # type: ignore[arg-type]
            connection.commit()
            result = differences(before, picture(here))
        assert any(fault in line for line in result), (plant, result)


def test_a_second_runner_is_refused_and_ctrl_c_can_be_resumed(place: Callable[[str], Place], source: Any) -> None:
    """While one process works on a run another ends with 2; an interrupted one ends with 1, says so, and is resumed."""
    here = place("doubled")
    arguments = steps(source.path, batch_rows=20)[0].arguments
    first = here.start(*arguments)
    try:
        reached(here, first, "load")
        first.send_signal(signal.SIGSTOP)
        second = here.start("run", "chroma-to-pgvector", "--run-id", RUN, cold=False)
        assert second.wait(60) == 2
        assert f"another process is working on run {RUN}" in here.log
        first.send_signal(signal.SIGCONT)
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 1
        assert "interrupted" in here.log, here.log
    finally:
        first.kill()
        first.wait()
    assert here.start(*arguments, cold=False).wait(120) == 0, here.log


@pytest.mark.whole
def test_postgresql_restarted_in_the_middle(prefect_url: str, source: Any, tmp_path: Path) -> None:
    """A run whose PostgreSQL is restarted either retries its way through or ends Failed, and then a resumed one finishes."""
    with postgres_server(tmp_path / "postgres") as server:
        new_database(server.get_uri(), "restarted")
        here = Place(server.get_uri(database="restarted"), tmp_path / "home", prefect_url)
        arguments = steps(source.path, batch_rows=20)[0].arguments
        process = here.start(*arguments)
        try:
            reached(here, process, "load")
            server.stop()
            time.sleep(1)
            server.ensure_postgres_running()
            status = process.wait(120)
        finally:
            process.kill()
            process.wait()
        assert status in (0, 1), here.log
        assert "Traceback" not in here.log
        if status:
            assert "vecferry:" in here.log
        assert here.start(*arguments).wait(120) == 0, here.log
        with here.connection() as connection:
            assert connection.execute("SELECT state FROM vecferry.run").fetchone() == ("verified",)


PAIRS = [(flow, layout) for flow, subject in SUBJECTS.items() for layout in subject.layouts]


@pytest.mark.parametrize(("flow", "layout"), sampled(PAIRS, ("text-384-to-1536", "side_table")))
def test_kills_while_people_write(place: Callable[[str], Place], tmp_path: Path, flow: str, layout: str) -> None:
    """Killed a few times while four connections write to the table and one searches it: no vector missing, stale or orphaned in
    the end, no wrong answer, of old vectors or new ones, and of images and documents nothing made twice that was kept."""
    chaos = chaos_live.Disturbed(random.Random(7))
    subject = SUBJECTS[flow](tmp_path / "files", SUBJECTS[flow].layouts.index(layout))
    life = [step for step in chaos_live.steps(subject, layout, 15, 1.0) if step.name in SHORT]
    here = place(f"live_{layout.replace(' ', '_')}")
    chaos_live.cycle(chaos, here, subject, life, layout, chaos_live.Size(300, 3, pause=0.1), lambda line: None)
    assert chaos.different == []
    assert chaos.wrong == []
    assert min(chaos.asked["old"], chaos.asked["new"]) > 20
    assert chaos.kills.total() > 0
    assert min(chaos.wrote[kind] for kind in subject.kinds) > 10


@pytest.mark.whole
def test_kills_while_people_write_to_qdrant(place: Callable[[str], Place], tmp_path: Path) -> None:
    """Killed twice while two applications write to a collection that is replaced, and somebody searches it: every point is as it was
    written last, with a vector of what it says, in the old place and in the new one, and no answer is wrong."""
    chaos, life = chaos_qdrant.Disturbed(random.Random(7)), next(life for life in LIVES if life.strategy == "replace")
    with memory_folder(tmp_path / "qdrant") as kept, qdrant_server(kept, version=life.version) as server:
        application = Application(server.url, life, tmp_path / "files")
        steps = [step for step in chaos_qdrant.steps(application, 10) if step.name in SHORT]
        scene = chaos_qdrant.Scene(place("points"), application, server)
        chaos_qdrant.cycle(chaos, scene, steps, 2, lambda line: None, rows=100)
    assert chaos.different == []
    assert chaos.wrong == []
    assert min(chaos.asked["old"], chaos.asked["new"]) > 5
    assert chaos.kills.total() > 0
    assert min(chaos.wrote[kind] for kind in KINDS) > 1
