"""Live tables whose old vectors have an index of another kind, and what rests on their column."""

from itertools import product

import pytest

from tasks.stores.postgres.connection import Connection
from tests.helpers.lifecycle import drive
from tests.helpers.live_table import Table, migration_of
from tests.helpers.sampling import sampled

pytestmark = pytest.mark.usefixtures("prefect")
OPERATORS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
EVERY = [*product(("vector", "halfvec"), ("ivfflat", "hnsw"), OPERATORS)]


def indexed(connection: Connection, kind: str, method: str, metric: str) -> Table:
    """A live table with old vectors of the type, an index of that method on them, and a search function that uses it."""
    table, operator = Table(connection, rows=120), OPERATORS[metric]
    connection.execute("DROP INDEX docs_old; DROP FUNCTION match_docs")
    connection.execute(f"ALTER TABLE docs ALTER COLUMN embedding TYPE {kind}(384) USING embedding::{kind}(384)")
    lists = " WITH (lists = 4)" if method == "ivfflat" else ""
    connection.execute(f"CREATE INDEX docs_old ON docs USING {method} (embedding {kind}_{metric}_ops){lists}")
    connection.execute(
        f"CREATE FUNCTION match_docs(query_embedding {kind}(384), match_threshold float, match_count int DEFAULT 5) "
        "RETURNS TABLE (id bigint, content text, similarity float) LANGUAGE sql STABLE AS $$ "
        f"SELECT d.id, d.content, 1 - (d.embedding {operator} query_embedding) FROM docs d "
        f"WHERE 1 - (d.embedding {operator} query_embedding) > match_threshold ORDER BY d.embedding {operator} query_embedding "
        "LIMIT match_count $$"
    )
    return table


@pytest.mark.parametrize(("kind", "method", "metric"), sampled(EVERY))
def test_a_life_that_starts_from_any_index(connection: Connection, kind: str, method: str, metric: str) -> None:
    """Plan to contract, from vectors or halves, by IVFFlat or HNSW, whatever the metric: what is made is searched by the same one, and
    the old index is there and used until the contract."""
    table = indexed(connection, kind, method, metric)
    migration = migration_of(table, "column", old_embedder="hashing/384")
    planned = migration.plan()
    assert planned.plan.targets[0].collection.metric == metric
    assert [index.method for index in planned.layouts[0].indexes if index.name == "docs_old"] == [method]
    drive(migration)
