"""The deployments of siglip-to-clip on a real Prefect server with a real worker."""

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.runs import ledger
from tasks.stores.postgres.connection import connect
from tests.helpers.captioned import NAME, NEW, Points
from tests.helpers.deployed import POINTS, Api, deployed
from tests.helpers.qdrant import Qdrant

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.whole]

EVERY = 4.0
"""Seconds between two nights."""


@pytest.fixture(scope="module")
def api(postgres: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with deployed(postgres, tmp_path_factory.mktemp("home")) as client:
        yield client


def asked(qdrant: Qdrant, **more: Any) -> dict[str, Any]:
    return {
        "qdrant": {"url": qdrant.url}, "content": "text", "text": "caption", "embedder": f"hashing/{NEW.dimensions}",
        "cutover": "auto", "gates": {"max_quarantined": 20, "min_recall": 0}, **more,
    }  # fmt: skip


def test_a_batch_that_failed_is_rerun_with_the_parameters_shown(api: Api, qdrant: Qdrant) -> None:
    """`manual` ends Failed and names the batches of a server that does not take writes; `rerun-failed` with the parameters of the
    artifact ends Completed, switched, with the vector of every point."""
    points, server = Points(qdrant.client()).make(30), qdrant.server
    server.fail("upsert_points", 503, 1 << 30)
    run = api.ended(api.start("siglip-to-clip/manual", parameters=asked(qdrant, run_id="down", batch_rows=10)))
    assert run["state_type"] == "FAILED"
    assert "failed in load: 0" in run["state"]["message"], run["state"]["message"]
    shown = api.artifact("down-rerun")
    parameters = json.loads(re.search(r"```json\n(.*)\n```", shown["description"], re.DOTALL)[1])  # type: ignore[index]
    assert parameters["batch_ids"]
    server.mend()
    second = api.ended(api.start("siglip-to-clip/rerun-failed", parameters=parameters))
    assert second["state_type"] == "COMPLETED", second["state"]["message"]
    beside = f"{NAME}_{NEW.dimensions}"
    assert [(a.alias_name, a.collection_name) for a in qdrant.client().get_aliases().aliases] == [
        (f"{beside}_current", beside)
    ]
    assert points.rows(beside) == points.expected()


def test_a_schedule_brings_what_was_changed_by_day(api: Api, qdrant: Qdrant, tmp_path: Path) -> None:
    """The first night migrates and switches, by itself; the second, which names no run either, brings what was written by day. There is
    one run."""
    points = Points(qdrant.client(), old="siglip").make(30)
    with api.every(EVERY, POINTS, **asked(qdrant, vector_name="clip", database="NIGHTLY_URL")) as begun:
        first = api.fired(POINTS, begun)
        assert first["state_type"] == "COMPLETED", first["state"]["message"]
        points.change(1)
        assert points.rows(NAME, "clip") != points.expected()
        second = api.fired(POINTS, datetime.now(UTC))
        assert second["state_type"] == "COMPLETED", second["state"]["message"]
    with connect(os.environ["NIGHTLY_URL"], "vecferry test") as connection:
        (name,) = [run for run in ledger.run_ids(connection) if run.startswith("siglip-to-clip")]
    assert first["name"] == second["name"] == name
    assert "caught up" in second["state"]["message"], second["state"]["message"]
    assert points.rows(NAME, "clip") == points.expected()
