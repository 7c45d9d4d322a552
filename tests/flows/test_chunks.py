"""How the batches of a stage become tasks of Prefect's."""

import threading

import pytest
from prefect import flow, task

from flows.chunks import in_chunks
from flows.forms.text_384_to_1536 import Text384To1536
from flows.naming import RUNNER
from tasks import snapshot
from tasks.begin import begin
from tasks.runs import checkpoints, work
from tasks.runs.checkpoints import Done
from tasks.runs.run import open_run
from tasks.stores.postgres.connection import Connection
from tests.helpers.live_table import Table

BATCHES = 12


@pytest.mark.usefixtures("prefect")
def test_nobody_waits_for_the_oldest_chunk(connection: Connection) -> None:
    """A worker whose chunk is done takes the next one, though the other is still at the first."""
    Table(connection, rows=BATCHES)
    targets = [{"table": "docs", "text": "content"}]
    form = Text384To1536.model_validate(
        {"targets": targets, "embedder": "hashing/16", "batch_rows": 1, "workers": 2, "gates": {"min_recall": 0}}
    )
    begin(form.request(), "slow", form.given())
    run = open_run("slow", form.database)
    snapshot.list_ids(run, 0)
    others_are_done = threading.Event()

    @task
    def do(run_id: str, database: str, numbers: list[int], which: str) -> work.Tally:
        if 0 in numbers:
            assert others_are_done.wait(20), "nobody took up what was left"
        with run.connection() as own:
            for number in numbers:
                checkpoints.done(own, run_id, Done("snapshot", number, rows=1, seconds=0.0))
            left = [b for b in checkpoints.batches(own, run_id, "snapshot") if b.status != "done"]
        if {b.number for b in left} <= {0}:
            others_are_done.set()
        return work.Tally(len(numbers), rows=len(numbers))

    @flow(task_runner=RUNNER)
    def shown() -> None:
        in_chunks(run, form, "snapshot", do)

    shown()
    assert {b.status for b in checkpoints.batches(connection, "slow", "snapshot")} == {"done"}
