"""Hostile records go through a whole migration, from a real Chroma directory into a real PostgreSQL.

What Chroma itself gives back is the truth; nothing is compared with what the adapters think they read.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tasks.base import files
from tasks.base.errors import VerificationRefused
from tasks.runs.run import Run
from tasks.shadows.postgres.comparing import is_ours
from tasks.stores import canonical
from tasks.stores.chroma import store as chroma
from tasks.stores.chroma.store import ChromaStore
from tasks.stores.postgres.connection import Connection, connect
from tasks.stores.postgres.storable import SYMBOL_FOR_NUL, Nul
from tests.helpers.pipeline import build, finish, quarantined
from tests.helpers.postgres_store import PostgresStore
from tests.helpers.sampling import sampled

LONG, TOO_LONG = "x" * 10_000, random.Random(1).randbytes(5_000).hex()
"""10 kB that compress to a key that fits, and 10 kB that do not."""
HOSTILE = [
    "it's", '"quoted"', "two\nlines\r\n", "back\\slash", "\\n", "100 %", "%s %(x)s", ":id :'x' :\"x\"", "$1 $$ $x$", "--", ";",
    "😀👩‍👩‍👧", "e\u0301", "é", "A", "a", "a ", " a", "a\t", "\u200b", "\ufeff", "\U0010ffff", "NaN", "Infinity", "null", "\\u0000",
    "\\\\u0000", '{"a": 1}', "\x01\x1f\x7f", SYMBOL_FOR_NUL, "nul\0", LONG,
]  # fmt: skip
TEXT = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INTEGER = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1, 0])
FLOAT = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [1e300, 5e-324, -0.0, 1e16, -1e16, 0.1, 1e15, 9999999999999998.0, 1e-3, 1e-5, 1.0, 1.7976931348623157e308]
)
LISTS = st.one_of([st.lists(kind, min_size=1, max_size=3) for kind in (TEXT, INTEGER, FLOAT, st.booleans())])
KEY = TEXT.filter(lambda key: key and key[0] not in "#$" and not key.startswith("chroma:"))
METADATA = st.none() | st.dictionaries(
    KEY, st.one_of(TEXT, INTEGER, FLOAT, st.booleans(), LISTS), min_size=1, max_size=4
)
METRIC = st.sampled_from(["cosine", "l2", "ip"])

pytestmark = pytest.mark.usefixtures("kept_connections")
quick = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Place:
    """Where the examples of one test live, side by side."""

    chroma: ChromaStore
    connection: Connection
    numbers: "count[int]"


@pytest.fixture
def place(database: str, tmp_path: Path) -> Any:
    with connect(database) as connection:
        yield Place(chroma.create_directory(str(tmp_path / "chroma")), connection, count())


@st.composite
def example(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of Chroma's ``add``: up to twelve records, some without this or that, some with equal or zero vectors."""
    ids = draw(st.lists((TEXT | st.just(TOO_LONG)).filter(bool), min_size=1, max_size=12, unique=True))
    dimensions = draw(st.sampled_from([1, 2, 5, 384]))
    kind = st.sampled_from(["random", "random", "zero", "twin", "large"])
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    vectors = {
        "random": lambda: rng.standard_normal(dimensions),
        "zero": lambda: np.zeros(dimensions),
        "twin": lambda: np.ones(dimensions),
        "large": lambda: rng.integers(-1000, 1000, dimensions),
    }
    optional = st.none() | TEXT
    return {
        "ids": ids,
        "embeddings": [vectors[draw(kind)]().astype(np.float32) for _ in ids],
        "documents": [draw(optional) for _ in ids],
        "metadatas": [draw(METADATA) for _ in ids],
        "uris": [draw(optional) for _ in ids],
    }


@quick
@given(records=example(), metric=METRIC, nul=st.sampled_from(["quarantine", "escape"]))
def test_every_record_arrives_or_is_accounted_for(place: Place, records: dict[str, Any], metric: str, nul: Nul) -> None:
    """After a migration the table says what Chroma says, save for rows that are in the quarantine with a reason."""
    run, source, served = migrate(place, records, metric, nul=nul)
    lost = {i for i, row in source.items() if i == TOO_LONG or "\0" in i or (nul == "quarantine" and holds_nul(row))}
    assert quarantined(run) == len(lost)
    assert set(kept(run)) == lost
    finish(run, max_quarantined=len(lost))
    assert_equal(served(), {i: escaped(row) for i, row in source.items() if i not in lost})


@pytest.mark.parametrize(
    ("dimensions", "metric"),
    sampled(
        [
            (1, "l2"),
            (2, "ip"),
            (384, "cosine"),
            (2000, "cosine"),
            (2001, "l2"),
            (4000, "cosine"),
            (4000, "ip"),
            (4001, "ip"),
        ],
        (1, "l2"),
        (2000, "cosine"),
        (2001, "l2"),
        (4001, "ip"),
    ),
)
def test_every_dimension_migrates(place: Place, dimensions: int, metric: str) -> None:
    """One to 4,001 dimensions, over pgvector's index limit too, with zero vectors and equal ones among them."""
    rng = np.random.default_rng(dimensions)
    matrix = rng.standard_normal((12, dimensions)).astype(np.float32)
    matrix[3], matrix[5:8] = 0, matrix[4]
    records = {"ids": [f"row-{i}" for i in range(12)], "embeddings": list(matrix), "documents": ["d"] * 12}
    run, source, served = migrate(place, records, metric)
    finish(run)
    assert_equal(served(), source)
    indexes = place.connection.execute("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%USING hnsw%'").fetchone()
    assert indexes == (0 if dimensions > 4000 else 1,)


def test_quarantined_rows_are_never_silently_green(place: Place) -> None:
    """Without leave to quarantine, verification refuses a run that set rows aside, and names them."""
    records = {
        "ids": ["good", "nul\0id", TOO_LONG, "document", "metadata", "key", "list", "uri"],
        "embeddings": [np.eye(8, dtype=np.float32)[i] for i in range(8)],
        "documents": ["fine", None, None, "a\0b", None, None, None, None],
        "metadatas": [{"a": "\\u0000"}, None, None, None, {"a": "b\0"}, {"b\0": 1}, {"a": ["x", "\0"]}, None],
        "uris": [None, None, None, None, None, None, None, "s3://\0"],
    }
    run, _, served = migrate(place, records, "l2")
    assert quarantined(run) == 7
    assert {i: row["class"] for i, row in kept(run).items()} == {
        i: "id_too_long" if i == TOO_LONG else "nul" for i in records["ids"] if i != "good"
    }
    assert "2704" in kept(run)[TOO_LONG]["message"]
    for name in ("document", "metadata", "uri"):
        assert kept(run)[name]["message"].startswith(f"{name} holds a NUL")
    with pytest.raises(VerificationRefused, match=r"quarantined \(7 .*required ≤ 0"):
        finish(run)
    with pytest.raises(VerificationRefused, match=r"quarantined \(7 .*required ≤ 6"):
        finish(run, max_quarantined=6)
    finish(run, max_quarantined=7)
    assert list(served()) == ["good"]


def test_a_vector_that_chroma_overflowed_is_quarantined(place: Place) -> None:
    """Chroma normalizes cosine vectors in float32 and hands out NaN where that overflows: such a row is named."""
    records = {"ids": ["good", "overflowed"], "embeddings": [[1.0, 2.0], [1e20, 1.0]]}
    run, _, served = migrate(place, records, "cosine")
    assert {i: row["class"] for i, row in kept(run).items()} == {"overflowed": "not_finite"}
    finish(run, max_quarantined=1)
    assert list(served()) == ["good"]


@settings(parent=quick, max_examples=100)
@given(document=st.none() | TEXT, metadata=METADATA, uri=st.none() | TEXT)
def test_a_row_read_back_is_known_as_ours(
    connection: Connection, document: str | None, metadata: Any, uri: str | None
) -> None:
    """What PostgreSQL's jsonb gives back hashes to what was hashed before it was written, whatever the metadata."""
    row = {"document": document, "metadata": metadata, "uri": uri}
    document, metadata, uri = (escaped(row)[name] for name in ("document", "metadata", "uri"))
    text = canonical.dumps(metadata)
    locked = connection.execute("SELECT %s::text, %s::text::jsonb::text, %s::text", (document, text, uri)).fetchone()
    assert locked
    assert is_ours(*locked, stored=canonical.content_hash(document, text, uri))
    assert typed(canonical.loads(locked[1])) == typed(canonical.loads(text))


def migrate(
    place: Place, records: dict[str, Any], metric: str, **parameters: Any
) -> tuple[Run, dict[str, Any], Callable[[], dict[str, Any]]]:
    """Adds the records to a new collection and migrates it; returns the run, what Chroma says of each record, and how
    to read what the table says once it is cut over."""
    number = next(place.numbers)
    configuration: Any = {"hnsw": {"space": metric}}
    collection = place.chroma.client.create_collection(
        f"col-{number}", embedding_function=None, configuration=configuration
    )
    collection.add(**records)
    got: dict[str, Any] = dict(collection.get(include=["embeddings", "documents", "metadatas", "uris"]))
    columns = [got[name] for name in ("ids", "documents", "metadatas", "uris", "embeddings")]
    source = {i: row_of(*row) for i, *row in zip(*columns, strict=True)}
    run = build(
        f"run-{number}", chroma={"path": place.chroma.place}, collections=[f"col-{number}"], batch_rows=5, **parameters
    )

    def served() -> dict[str, Any]:
        store, table = PostgresStore(place.connection), run.plan.targets[0].place.table
        rows = store.records(table).fetch(store.records(table).ids().to_pylist()).to_pylist()
        return {r["id"]: row_of(r["document"], canonical.loads(r["metadata"]), r["uri"], r["embedding"]) for r in rows}

    return run, source, served


def row_of(document: str | None, metadata: Any, uri: str | None, embedding: Any) -> dict[str, Any]:
    return {"document": document, "metadata": metadata, "uri": uri, "embedding": np.asarray(embedding, np.float32)}


def assert_equal(rows: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The same ids, and of each the same document, metadata with its types, uri, and vector to the last bit."""
    assert rows.keys() == wanted.keys()
    for i, row in wanted.items():
        for name in ("document", "uri"):
            assert rows[i][name] == row[name]
        assert typed(rows[i]["metadata"]) == typed(row["metadata"])
        np.testing.assert_array_equal(rows[i]["embedding"], row["embedding"])


def typed(value: Any) -> Any:
    """A value that equals another only where the types agree too: 1, 1.0 and True are three things."""
    if isinstance(value, dict):
        return {key: typed(v) for key, v in value.items()}
    return [typed(v) for v in value] if isinstance(value, list) else (type(value), value)


def kept(run: Run) -> dict[str, dict[str, Any]]:
    """The rows in the run's quarantine, by id."""
    folder = run.path("quarantine")
    rows = [row for name in files.names(folder) for row in pq.read_table(f"{folder}/{name}").to_pylist()]
    assert all(row["class"] and row["message"] for row in rows)
    return {row["id"]: row for row in rows}


def holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(holds_nul(v) for pair in value.items() for v in pair)
    return any(map(holds_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def escaped(value: Any) -> Any:
    """The same with U+2400 for every NUL."""
    if isinstance(value, dict):
        return {escaped(k): escaped(v) for k, v in value.items()}
    if isinstance(value, list):
        return [escaped(v) for v in value]
    return value.replace("\0", SYMBOL_FOR_NUL) if isinstance(value, str) else value
