"""Rows that PostgreSQL cannot store: each class is told apart, named and kept."""

import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.runs import quarantine
from tasks.runs.plan import Plan, Request
from tasks.runs.run import Run
from tasks.stores import canonical
from tasks.stores.interface import records
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.storable import SYMBOL_FOR_NUL, sift
from tasks.stores.postgres.table import Table, create_table
from tasks.stores.postgres.wire import copy_records
from tasks.stores.records import with_hash

VECTOR, HALF = Layout("vector", 2, "l2"), Layout("halfvec", 2, "l2")
TOO_LONG = random.Random(0).randbytes(4_000).hex()
FITS = "x" * 100_000


def page(*rows: dict[str, Any]) -> pa.Table:
    """Records with hashes; ids are numbered and vectors (1, 2) where none are given."""
    filled = [{"id": f"row-{n}", "embedding": [1.0, 2.0], **row} for n, row in enumerate(rows)]
    return with_hash(pa.Table.from_batches([pa.RecordBatch.from_pylist(filled, records(2))]))


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"id": "a\0b"}, "nul", "the id holds a NUL"),
        ({"document": "a\0b"}, "nul", "document holds a NUL.*nul=escape"),
        ({"uri": "\0"}, "nul", "uri holds a NUL"),
        ({"metadata": canonical.dumps({"k": "\0"})}, "nul", "metadata holds a NUL"),
        ({"metadata": canonical.dumps({"\0": 1})}, "nul", "metadata holds a NUL"),
        ({"metadata": canonical.dumps({"k": ["a", "\0"]})}, "nul", "metadata holds a NUL"),
        ({"metadata": canonical.dumps({"k": "\\\0"})}, "nul", "metadata holds a NUL"),
        ({"id": TOO_LONG}, "id_too_long", "2704 bytes"),
        ({"metadata": '{"k":NaN}'}, "metadata", "NaN or an infinity"),
        ({"metadata": '{"k":[1.0,-Infinity]}'}, "metadata", "NaN or an infinity"),
        ({"embedding": [float("nan"), 0]}, "not_finite", "NaN or an infinity"),
        ({"embedding": [float("-inf"), 0]}, "not_finite", "NaN or an infinity"),
    ],
)
def test_what_cannot_be_stored_is_set_aside(
    connection: Connection, row: dict[str, Any], kind: str, message: str
) -> None:
    """The row goes out with its class and why; its neighbours stay, and PostgreSQL takes them."""
    good, bad = sift(lambda: nullcontext(connection), page({}, row, {}), VECTOR, "quarantine")
    assert bad is not None
    assert bad.column("class").to_pylist() == [kind]
    assert pa.compute.match_substring_regex(bad.column("message"), message).to_pylist() == [True]
    assert repr(bad.drop_columns(["class", "message"]).to_pylist()) == repr(page({}, row, {}).slice(1, 1).to_pylist())
    assert good.column("id").to_pylist() == ["row-0", "row-2"]
    stored(connection, good, VECTOR)


@pytest.mark.parametrize(
    "row",
    [
        {"id": FITS},
        {"id": "it's 100 % \\ \n"},
        {"document": "\\u0000 \\0 %00"},
        {"document": "x" * 1_000_000},
        {"metadata": canonical.dumps({"k": "\\u0000"})},
        {"metadata": canonical.dumps({"\\u0000": ["\\\\u0000"]})},
        {"metadata": canonical.dumps({"NaN": "Infinity", "k": "-Infinity"})},
        {"metadata": canonical.dumps({"k": [1e300, 5e-324, 2**63 - 1]})},
        {"embedding": None, "document": None},
        {"embedding": [3e38, -1e-45]},
    ],
)
@pytest.mark.parametrize("nul", ["quarantine", "escape"])
def test_what_only_looks_bad_is_kept(connection: Connection, row: dict[str, Any], nul: Any) -> None:
    """A long id that compresses, text that looks like an escape, and 'NaN' as a word are stored as they are."""
    whole = page({}, row)
    good, bad = sift(lambda: nullcontext(connection), whole, VECTOR, nul)
    assert bad is None
    assert good.equals(whole)
    stored(connection, good, VECTOR)


def test_escaping_replaces_nul_and_hashes_anew(connection: Connection) -> None:
    """With nul=escape the text is kept with U+2400, under a hash of what is stored; only an id is still set aside."""
    good, bad = sift(
        lambda: nullcontext(connection),
        page(
            {"document": "a\0", "uri": "\0b", "metadata": canonical.dumps({"k\0": ["\0", 1.0]})},
            {"id": "\0", "document": "as \0 it came"},
            {},
        ),
        VECTOR,
        "escape",
    )
    assert bad is not None
    assert bad.select(["id", "document"]).to_pylist() == [{"id": "\0", "document": "as \0 it came"}]
    nul = SYMBOL_FOR_NUL
    assert good.equals(
        page({"document": f"a{nul}", "uri": f"{nul}b", "metadata": f'{{"k{nul}":["{nul}",1.0]}}'}, {}, {}).take([0, 2])
    )
    stored(connection, good, VECTOR)


def test_escaping_loses_no_key(connection: Connection) -> None:
    """Two keys that escaping would make one are not merged: the row is set aside."""
    both = canonical.dumps({"k\0": 1, f"k{SYMBOL_FOR_NUL}": 2})
    good, bad = sift(lambda: nullcontext(connection), page({}, {"metadata": both}), VECTOR, "escape")
    assert bad is not None
    assert bad.column("metadata").to_pylist() == [both]
    assert "two keys" in bad.column("message")[0].as_py()
    assert good.num_rows == 1


def test_halves_have_a_range(connection: Connection) -> None:
    """A component beyond ±65504 is set aside where the table has halves, and stored where it has floats."""
    rows = page({"embedding": [65504, -65504]}, {"embedding": [1e5, 0]})
    assert sift(lambda: nullcontext(connection), rows, VECTOR, "quarantine")[1] is None
    good, bad = sift(lambda: nullcontext(connection), rows, HALF, "quarantine")
    assert bad is not None
    assert bad.column("class").to_pylist() == ["halfvec_range"]
    assert "halfvec=false" in bad.column("message")[0].as_py()
    stored(connection, good, HALF)


def test_a_vector_of_another_dimension(connection: Connection) -> None:
    """A page that is wider than the table is set aside, with both numbers; rows without a vector are not."""
    good, bad = sift(
        lambda: nullcontext(connection), page({}, {"embedding": None}), Layout("vector", 3, "l2"), "quarantine"
    )
    assert bad is not None
    assert bad.column("class").to_pylist() == ["dimension"]
    assert bad.column("message")[0].as_py() == "the vector has 2 dimensions, the table 3"
    assert good.column("id").to_pylist() == ["row-1"]


def test_a_row_with_several_faults_is_counted_once(connection: Connection) -> None:
    """It has one line, with the first of its faults."""
    row = {"id": "\0", "document": "\0", "embedding": [float("nan"), 0]}
    good, bad = sift(lambda: nullcontext(connection), page(row), VECTOR, "quarantine")
    assert bad is not None
    assert (bad.num_rows, good.num_rows) == (1, 0)
    assert bad.column("message")[0].as_py().startswith("the id")


def test_rejected_rows_are_kept_as_parquet(connection: Connection, tmp_path: Path) -> None:
    """Vectors, text and reasons are read back as they were, NUL and NaN included."""
    _, bad = sift(
        lambda: nullcontext(connection), page({"document": "a\0"}, {"embedding": [np.nan, 1]}), VECTOR, "quarantine"
    )
    assert bad is not None
    request = Request(
        flow="any", source={}, database="DATABASE_URL", embedder=None, batch_rows=10, limit=None, rollback_days=7
    )
    path = quarantine.keep(Run(Plan("r", request, ()), "", str(tmp_path)), "load", 3, bad)
    assert Path(path) == tmp_path / "runs/r/quarantine/load-00003.parquet"
    kept = pq.read_table(path)
    assert kept.drop_columns(["embedding"]).equals(bad.drop_columns(["embedding"]))
    np.testing.assert_array_equal(np.stack(kept.column("embedding").to_pylist()), [[1, 2], [np.nan, 1]])


def stored(connection: Connection, good: pa.Table, layout: Layout) -> None:
    """PostgreSQL takes all of the rows, under a primary key."""
    table = Table("public", "docs", layout)
    create_table(connection, table)
    copy_records(connection, table.identifier, good, layout.type)
    connection.execute("ALTER TABLE docs ADD PRIMARY KEY (id)")
    assert connection.execute("SELECT count(*) FROM docs").fetchone() == (good.num_rows,)
