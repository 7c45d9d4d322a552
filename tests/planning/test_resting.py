"""What rests on the column of the old vectors is named by the plan, and what its index says of them."""

import pytest
from psycopg import errors

from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from tasks.base.errors import UsageError
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.table import describe

BY = "CREATE FUNCTION {}() RETURNS {} LANGUAGE {}"
DEPENDENTS = {
    "view seen": "CREATE VIEW seen AS SELECT id FROM docs WHERE embedding IS NOT NULL",
    "view above": "CREATE VIEW below AS SELECT embedding FROM docs; CREATE VIEW above AS SELECT 1 FROM below",
    'materialized view "Kept 100%"': 'CREATE MATERIALIZED VIEW "Kept 100%" AS SELECT embedding FROM docs',
    "generated column has": "ALTER TABLE docs ADD COLUMN has boolean GENERATED ALWAYS AS (embedding IS NOT NULL) STORED",
    "policy few on table docs": "CREATE POLICY few ON docs USING (embedding IS NOT NULL)",
    "trigger mine on table docs": f"{BY.format('f', 'trigger', 'plpgsql')} AS $$ BEGIN RETURN NEW; END $$; "
    "CREATE TRIGGER mine BEFORE UPDATE OF embedding ON docs FOR EACH ROW EXECUTE FUNCTION f()",
    "constraint there on table docs": "ALTER TABLE docs ADD CONSTRAINT there CHECK (embedding IS NOT NULL OR id < 9)",
    "rule noted on table docs": "CREATE TABLE notes (e vector(384)); "
    "CREATE RULE noted AS ON DELETE TO docs DO INSERT INTO notes VALUES (OLD.embedding)",
    "function g()": f"{BY.format('g', 'bigint', 'sql')} BEGIN ATOMIC SELECT count(embedding) FROM docs; END",
    "publication of table docs in publication told": "CREATE PUBLICATION told FOR TABLE docs (id, embedding)",
}
NONE = {
    "its index": "CREATE INDEX ON docs USING ivfflat (embedding vector_cosine_ops) WITH (lists = 1)",
    "a view of other columns": "CREATE VIEW other AS SELECT id, content FROM docs",
    "its own search function": "CREATE FUNCTION match_docs(query vector(384), threshold float, count int) "
    "RETURNS TABLE (id int, similarity float) LANGUAGE sql BEGIN ATOMIC SELECT d.id, 1 - (d.embedding <=> query) FROM docs d "
    "WHERE 1 - (d.embedding <=> query) > threshold ORDER BY d.embedding <=> query LIMIT count; END",
    "what it is generated from": "ALTER TABLE docs DROP COLUMN embedding, ADD COLUMN raw float4[], "
    "ADD COLUMN embedding vector(384) GENERATED ALWAYS AS (raw::vector(384)) STORED",
    "that it is not null": "ALTER TABLE docs ALTER COLUMN embedding SET NOT NULL",
}


@pytest.fixture
def docs(connection: Connection) -> Connection:
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute("CREATE TABLE docs (id int PRIMARY KEY, content text, embedding vector(384))")
    return connection


def planned(connection: Connection) -> Planned:
    parameters = {"targets": [{"table": "docs"}], "embedder": "hashing/1536"}
    return make_plan(connection, parse(Text384To1536, parameters).request(), "plan")


@pytest.mark.parametrize("name", DEPENDENTS)
def test_a_dependent_is_named(docs: Connection, name: str) -> None:
    """By what it is and what it is called, with what a contract does: nothing while it is there, unless PostgreSQL drops it with the
    column. It is no problem of the plan, since the old column stays until then."""
    docs.execute(DEPENDENTS[name])
    (told,) = [line for line in planned(docs).warnings if line.startswith("public.docs.embedding ")]
    assert name in told
    dropped = "drops that with the column" in told
    assert dropped != ("cannot drop the column" in told)
    if dropped:
        docs.execute("ALTER TABLE docs DROP COLUMN embedding")
    else:
        with pytest.raises(errors.DependentObjectsStillExist):
            docs.execute("ALTER TABLE docs DROP COLUMN embedding")


@pytest.mark.parametrize("what", NONE)
def test_what_goes_with_the_column_is_no_dependent(docs: Connection, what: str) -> None:
    """Nor is what the migration switches."""
    docs.execute(NONE[what])
    assert not [line for line in planned(docs).warnings if line.startswith("public.docs.embedding ")]


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
@pytest.mark.parametrize("method", ["ivfflat", "hnsw"])
def test_the_metric_is_that_of_the_columns_own_index(docs: Connection, kind: str, method: str) -> None:
    """Of vectors and halves, by either method, over the column or an expression of it; that of another column says nothing."""
    docs.execute(f"ALTER TABLE docs ADD COLUMN other vector(3), ALTER COLUMN embedding TYPE {kind}(384)")
    docs.execute(f"CREATE INDEX ON docs USING {method} ((other::halfvec(3)) halfvec_ip_ops)")

    def metric() -> str:
        described = describe(docs, "public", "docs")
        assert described
        assert described.layout.type == kind
        return described.layout.metric

    assert metric() == "cosine"
    docs.execute(f"CREATE INDEX plain ON docs USING {method} (embedding {kind}_l2_ops)")
    assert metric() == "l2"
    docs.execute(f"DROP INDEX plain; CREATE INDEX ON docs USING {method} ((embedding::halfvec(384)) halfvec_l2_ops)")
    assert metric() == "l2"


def test_a_distance_that_cannot_be_searched_by_is_told(docs: Connection) -> None:
    """An index of L1 is refused by its name, unless the column has another one too."""
    docs.execute("CREATE INDEX ON docs USING hnsw (embedding vector_l1_ops)")
    with pytest.raises(
        UsageError, match=r"the index on public.docs.embedding is of vector_l1_ops: only cosine, l2 and ip"
    ):
        planned(docs)
    docs.execute("CREATE INDEX ON docs USING hnsw (embedding vector_ip_ops)")
    assert planned(docs).plan.targets[0].collection.metric == "ip"
