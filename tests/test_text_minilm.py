"""From the real all-MiniLM-L6-v2 to a model of a provider, through the whole life of a live table."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.embedders.registry import open_embedder
from tasks.stores.connection import Connection
from tests.lifecycle import drive
from tests.live_table import LAYOUTS, Table, migration_of
from tests.local_models import needs_minilm
from tests.openai_server import OpenAIServer

pytestmark = [pytest.mark.usefixtures("prefect"), needs_minilm]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_from_all_minilm(
    connection: Connection, provider: OpenAIServer, minilm: Path, layout: str, tmp_path: Path
) -> None:
    """The old vectors are found to be all-MiniLM's before each switch; after it they are kept current although nobody else
    does so, and each is all-MiniLM's of what its row says now when the switch is rolled back."""
    name = f"sentence-transformers/{minilm}"
    model = open_embedder(name)
    table = Table(connection, old=model.embed_batch, new=provider.vectors)
    migration = migration_of(table, layout, "openai/text-embedding-3-small", old_embedder=name)

    def old_model() -> dict[str, Any]:
        report = json.loads((tmp_path / "home/runs/life/report.json").read_text())
        return next(check for check in report["targets"][0]["checks"] if check["name"] == "old model")

    def gone_back() -> None:
        rows = connection.execute("SELECT content, embedding::text FROM docs WHERE content <> ''").fetchall()
        held = np.array([vector[1:-1].split(",") for _, vector in rows], np.float32)
        np.testing.assert_allclose(held, model.embed_batch([said for said, _ in rows]), atol=1e-5)
        assert len(rows) > 40

    drive(replace(migration, gone_back=gone_back))
    assert old_model()["passed"]
    assert old_model()["looked_at"] > 40
