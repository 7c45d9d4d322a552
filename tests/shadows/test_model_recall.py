"""Searches by models of all usual sizes: each goes through the index of its dimensions, and finds what comparing every row does."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from flows.command.demos import docstrings
from tasks.embedders import registry as providers
from tasks.embedders.registry import open_embedder
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres.models import init
from tasks.shadows.postgres.models.init import Asked
from tasks.stores.postgres.connection import Connection
from tests.helpers.local_models import needs_minilm
from tests.helpers.several_models import Several

OF_SIZES = ("hashing/384", "flipped/384", "hashing/768", "hashing/1536", "hashing/3072")
"""Two of them share a column."""
QUESTIONS = 40
RECALL = 0.95


def texts(rows: int) -> list[str]:
    """Of all modules, and all different."""
    every = list(dict.fromkeys(text for _, text in docstrings.of_top_modules() if len(text) <= 600))
    return every[:: len(every) // rows][:rows]


def holding(connection: Connection, models: Sequence[str], contents: Sequence[str]) -> Several:
    """A document a text, with vectors by all models."""
    tables, _ = init.initialise(connection, Asked())
    served = Several(connection, tables)
    for content in contents:
        connection.execute(
            "WITH document AS (INSERT INTO documents (title) VALUES ('a docstring') RETURNING id) "
            "INSERT INTO document_chunks (document_id, chunk_index, content) SELECT id, 0, %s FROM document",
            (content,),
        )
    served.register(*models)
    served.embed(*models)
    connection.execute("ANALYZE documents, document_chunks, chunk_embeddings")
    return served


def recall(served: Several, model: RegisteredModel, contents: Sequence[str], questions: Sequence[str]) -> float:
    """Of the 10 nearest, by the model's function with nothing set but that rows are not all read, against all rows compared."""
    embedder = open_embedder(model.name)
    matrix, probes = embedder.embed(contents).whole, embedder.embed(questions).whole
    shares = []
    for probe in probes:
        scores = np.sort(matrix @ probe / np.linalg.norm(probe))[::-1]
        call = f"SELECT similarity FROM search_chunks_{model.number}(%s, 10)"
        rows = served.connection.execute(call, (json.dumps(probe.tolist()),)).fetchall()
        shares.append(sum(similarity >= scores[9] - 1e-3 for (similarity,) in rows) / 10)
    return float(np.mean(shares))


def index_of(served: Several, model: RegisteredModel, question: str) -> str:
    """The index that EXPLAIN shows of a search by the model."""
    probe = json.dumps(open_embedder(model.name).embed([question]).whole[0].tolist())
    plan = served.connection.execute(f"EXPLAIN SELECT * FROM search_chunks_{model.number}('{probe}', 10)").fetchall()  # type: ignore[call-overload]
    [line] = [line for (line,) in plan if "hnsw" in line]
    return str(line.partition(" using ")[2].partition(" on ")[0])


@pytest.fixture(autouse=True)
def flipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(providers.PROVIDERS, "flipped", "tests.helpers.flipped:open_flipped")


def holds(connection: Connection, models: Sequence[str], rows: int) -> None:
    every = texts(rows + QUESTIONS)
    questions = every[:: len(every) // QUESTIONS][:QUESTIONS]
    contents = [text for text in every if text not in questions]
    served = holding(connection, models, contents)
    connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
    for name in models:
        model, whole = served.model(name), f"idx_embeddings_hnsw_{served.model(name).dimensions}"
        # One that shares a column has an index of its own rows besides, and the planner its choice.
        assert index_of(served, model, questions[0]) in (whole, f"{whole}_{model.number}")
        assert recall(served, model, contents, questions) >= RECALL, name


def test_every_size_goes_through_its_index(connection: Connection) -> None:
    """384 twice, 768, 1536 and, as halves, 3072."""
    holds(connection, OF_SIZES, 300)


@pytest.mark.whole
@needs_minilm
def test_the_real_minilm_among_them(connection: Connection, minilm: Path) -> None:
    """And a model of hashed words in the same column."""
    holds(connection, (f"sentence-transformers/{minilm}", *OF_SIZES[1:]), 400)
