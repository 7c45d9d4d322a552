"""Labels through whole runs: what the report tells of a change of model by a column of the table."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from tasks.base.errors import UsageError, VerificationRefused
from tasks.stores.postgres.connection import Connection
from tests.helpers.live_table import LAYOUTS, Table
from tests.helpers.sampling import sampled

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.mark.parametrize("layout", sampled(LAYOUTS, "side_table"))
def test_labels_tell_old_from_new(connection: Connection, layout: str) -> None:
    """The report compares old and new vectors by a column of the table, on the page and in report.json, wherever the new ones lie;
    a column that is not there is refused, and one by which nothing can be compared is a check that failed."""
    Table(connection, rows=120)
    connection.execute('ALTER TABLE docs ADD COLUMN "about <b>" text, ADD COLUMN nothing text')
    connection.execute(
        """UPDATE docs SET "about <b>" = CASE WHEN id < 100 THEN 'topic ' || id % 7 WHEN id < 104 THEN 'one ' || id END"""
    )
    target = {"table": "docs", "text": "content"}
    parameters: dict[str, Any] = {"embedder": "hashing/1536", "layout": layout, "gates": {"min_recall": 0}}
    with pytest.raises(UsageError, match="docs has no column 'topic'; its columns: id, title"):
        text_384_to_1536(**parameters, targets=[{**target, "label": "topic"}], run_id="refused")

    outcome = text_384_to_1536(**parameters, targets=[{**target, "label": "about <b>"}], run_id="told")
    page = Path(outcome["report"])
    told = json.loads(page.with_suffix(".json").read_text())["targets"][0]
    figures, check = told["benchmark"]["labels"], next(c for c in told["checks"] if c["name"] == "labels")
    assert (check["passed"], check["looked_at"], figures["rows"]) == (True, figures["rows"], figures["rows"])
    assert (figures["name"], figures["of"], figures["labels"], figures["alone"]) == ("about <b>", 7, 7, 3)
    rows = connection.execute("SELECT count(*) FROM docs WHERE id < 100 AND content <> ''").fetchone()
    assert rows == (figures["rows"],)
    assert 0 < figures["map"]["new"] <= figures["top1"]["new"] <= 1
    assert {one["label"] for one in figures["worst"]} == {f"topic {n}" for n in range(7)}
    assert "By about &lt;b&gt;, of" in page.read_text()
    assert "3 labels have a single row" in " ".join(told["notes"])

    rollback(run_id="told")
    with pytest.raises(VerificationRefused, match="labels \\(no two rows with both vectors have the same nothing"):
        text_384_to_1536(**parameters, targets=[{**target, "label": "nothing"}], run_id="failed")
    rollback(run_id="failed")
    smoke = {**target, "label": "nothing", "limit": 20}
    assert text_384_to_1536(**parameters, targets=[smoke], run_id="smoke")["state"] == "verified"
