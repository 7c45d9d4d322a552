"""The deployments of multi-model on a real Prefect server with a real worker."""

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.runs import ledger
from tasks.stores.postgres.connection import connect
from tests.helpers.deployed import MODELS, Api, deployed
from tests.helpers.served_tables import Served

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.whole]

EVERY = 4.0
"""Seconds between two nights."""
NEW = "hashing/768"
ASKED: dict[str, Any] = {"target_model": NEW, "cutover": "auto"}
REFUSES = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON chunk_embeddings FOR EACH ROW WHEN (NEW.chunk_id = 15) EXECUTE FUNCTION refuse()
"""


@pytest.fixture(scope="module")
def api(postgres: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with deployed(postgres, tmp_path_factory.mktemp("home")) as client:
        yield client


def test_a_batch_that_the_database_refused_is_rerun_with_the_parameters_shown(api: Api) -> None:
    """`manual` ends Failed and names the batch; `rerun-failed` with the parameters of the artifact ends Completed, switched, with the
    vector of every chunk."""
    with connect(os.environ["DATABASE_URL"], "vecferry test") as connection:
        served = Served(connection)
        served.init(NEW)
        connection.execute(REFUSES)
        asked = {**ASKED, "run_id": "refused", "batch_rows": 10}
        run = api.ended(api.start("multi-model/manual", parameters=asked))
        assert run["state_type"] == "FAILED"
        assert "1 batch failed in load" in run["state"]["message"], run["state"]["message"]
        connection.execute("DROP TRIGGER refuse ON chunk_embeddings")
        shown = api.artifact("refused-rerun")
        parameters = json.loads(re.search(r"```json\n(.*)\n```", shown["description"], re.DOTALL)[1])  # type: ignore[index]
        second = api.ended(api.start("multi-model/rerun-failed", parameters=parameters))
        assert second["state_type"] == "COMPLETED", second["state"]["message"]
        assert served.active() == NEW
        assert served.vectors(NEW) == served.expected(NEW)


def test_a_schedule_brings_what_was_written_by_day(api: Api) -> None:
    """The first night migrates and switches, by itself; the second, which names no run either, brings the chunks of a new document,
    by both models. There is one run."""
    with connect(os.environ["NIGHTLY_URL"], "vecferry test") as connection:
        served = Served(connection)
        served.init(NEW)
        with api.every(EVERY, MODELS, database="NIGHTLY_URL", **ASKED) as begun:
            first = api.fired(MODELS, begun)
            assert first["state_type"] == "COMPLETED", first["state"]["message"]
            served.insert()
            assert served.vectors(NEW) != served.expected(NEW)
            second = api.fired(MODELS, datetime.now(UTC))
            assert second["state_type"] == "COMPLETED", second["state"]["message"]
        (name,) = [run for run in ledger.run_ids(connection) if run.startswith("multi-model")]
        assert first["name"] == second["name"] == name
        assert served.vectors(NEW) == served.expected(NEW)
        assert served.vectors(served.source) == served.expected(served.source)
