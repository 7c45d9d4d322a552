"""From the real all-MiniLM-L6-v2 to a model of a provider, through the whole life of a live table."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.embedders.registry import open_embedder
from tasks.stores.postgres.connection import Connection
from tests.helpers.lifecycle import drive
from tests.helpers.live_table import LAYOUTS, Table, migration_of, vectors_of
from tests.helpers.local_models import needs_minilm
from tests.helpers.openai_server import OpenAIServer
from tests.helpers.sampling import sampled

pytestmark = [pytest.mark.usefixtures("prefect"), needs_minilm]

TOO_LONG = "more words than it takes " * 80
"""More than 256 tokens, and fewer than 8192."""


@pytest.mark.parametrize("layout", sampled(LAYOUTS))
def test_from_all_minilm(
    connection: Connection, provider: OpenAIServer, minilm: Path, layout: str, tmp_path: Path
) -> None:
    """The old vectors are found to be all-MiniLM's before each switch; after it they are kept current although nobody else
    does so, and when the switch is rolled back each is all-MiniLM's of what its row says now. A row that says nothing by
    then, or too much for all-MiniLM, has none."""
    name = f"sentence-transformers/{minilm}"
    model = open_embedder(name)
    table = Table(connection, old=vectors_of(model), new=provider.vectors)
    migration = migration_of(table, layout, "openai/text-embedding-3-small", old_embedder=name)

    def old_model() -> dict[str, Any]:
        report = json.loads((tmp_path / "home/runs/life/report.json").read_text())
        return next(check for check in report["targets"][0]["checks"] if check["name"] == "old model")

    def change() -> None:
        if table.switched():
            table.say(9, TOO_LONG)
        migration.change()

    def gone_back() -> None:
        rows = connection.execute("SELECT id, content, embedding::text FROM docs").fetchall()
        assert {name for name, _, vector in rows if vector is None} == {9, 52}, "too long, and without a text"
        text = {text: vector for _, text, vector in rows if text and vector}
        assert len(text) > 40
        kept = np.array([vector[1:-1].split(",") for vector in text.values()], np.float32)
        np.testing.assert_allclose(kept, model.embed(list(text)).whole, atol=1e-5)

    drive(replace(migration, change=change, gone_back=gone_back))
    assert old_model()["passed"]
    assert old_model()["looked_at"] > 40
