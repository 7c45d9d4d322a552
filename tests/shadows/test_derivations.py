"""What is derived from the text of a function, without a database: its body, the argument that is its query, or why there is none."""

from typing import Any

import pytest

from tasks.shadows.postgres.derive import Derived, derive
from tasks.shadows.postgres.mentions import Table
from tasks.shadows.postgres.underivable import Routine, Underivable, Vectors

ARGUMENTS = {"query_embedding": "vector", "match_count": "int4"}
COLUMNS = ("id", "content", "embedding", "fts", "slug")


def table(schema: str | None, name: str) -> Table | None:
    return {"docs": Table(COLUMNS, True), "cache": Table(("text", "vector"), False)}.get(name)


def derived(
    body: str, arguments: dict[str, str] = ARGUMENTS, language: str = "sql", beside: bool = False, **routine: Any
) -> Derived:
    """From 384 dimensions in ``embedding`` to 1536 in ``new``."""
    names, kinds = tuple(arguments), tuple(arguments.values())
    given = ", ".join(f"{name} {kind}" for name, kind in arguments.items())
    head = f"CREATE OR REPLACE FUNCTION public.match_docs({given})\n RETURNS SETOF bigint\n LANGUAGE {language}\n"
    function = Routine("match_docs", language, body, f"{head}AS $vecferry${body}$vecferry$", False, names, kinds)
    old = Vectors("embedding", "vector", 384, "vector", "public")
    new = Vectors(
        "new", "vector", 1536, "vector", "public", (lambda a, b: f"JOIN side {b} ON {b}.k = {a}.id") if beside else None
    )
    return derive(function, "made", old, new, table)


ROWS_LIKE_A_ROW = {
    "by the key": "SELECT id FROM docs ORDER BY embedding <=> (SELECT s.embedding FROM docs s WHERE s.slug = like_it) LIMIT n",
    "by the mean of some": "SELECT id FROM docs ORDER BY embedding <=> (SELECT avg(embedding) FROM docs WHERE slug = like_it) LIMIT n",
    "by a join": (
        "SELECT d.id FROM docs d JOIN (SELECT embedding AS e FROM docs WHERE slug = like_it) o ON true ORDER BY d.embedding <=> o.e LIMIT n"
    ),
    "of another table": "SELECT id FROM docs ORDER BY embedding <=> (SELECT vector FROM cache WHERE text = like_it) LIMIT n",
    "by a WITH": (
        "SELECT id FROM docs ORDER BY embedding <=> (WITH o AS (SELECT embedding AS e FROM docs WHERE slug = like_it) SELECT e FROM o)"
    ),
}


@pytest.mark.parametrize("kind", ["text", "int8"])
@pytest.mark.parametrize("name", ROWS_LIKE_A_ROW)
def test_what_only_chooses_the_row_is_no_query(name: str, kind: str) -> None:
    """An argument within a subquery that says which row is meant tells nothing of the vectors."""
    assert derived(ROWS_LIKE_A_ROW[name], {"like_it": kind, "n": "int4"}).query is None


@pytest.mark.parametrize(
    "query",
    [
        "(SELECT query_embedding)",
        "(SELECT q.e FROM (SELECT query_embedding AS e) q)",
        "(WITH q AS (SELECT query_embedding::vector(384) AS e) SELECT e FROM q)",
        "coalesce(query_embedding, (SELECT s.embedding FROM docs s WHERE s.slug = like_it))",
    ],
)
def test_what_a_subquery_hands_on_is_the_query(query: str) -> None:
    """An argument that is compared by way of a subquery is found there."""
    body = f"SELECT id FROM docs ORDER BY embedding <=> {query} LIMIT match_count"
    assert derived(body, {"like_it": "text", **ARGUMENTS}).query == 1


HYBRID = (
    "WITH worded AS (SELECT d.id FROM docs d WHERE d.fts @@ 'x' LIMIT 5), "
    "meant AS (SELECT d.id FROM docs d ORDER BY d.embedding <=> query_embedding LIMIT 5) SELECT id FROM worded UNION SELECT id FROM meant"
)


def test_a_table_beside_is_joined_only_where_its_vectors_are_named() -> None:
    """What is found by words alone is found without a vector too, whatever the table is called in several subqueries."""
    body = derived(HYBRID, beside=True).body
    words, meaning = body.split("), meant AS (")
    assert "JOIN" not in words
    assert meaning.count("JOIN side") == 1


WITHOUT_VECTORS = {
    "by words or by meaning": "d.fts @@ 'x' OR d.embedding <=> query_embedding < 0.5",
    "by the better of both": "greatest(1 - (d.embedding <=> query_embedding), length(d.content)) > 3",
    "by one or the other": "CASE WHEN d.fts @@ 'x' THEN 1 ELSE 1 - (d.embedding <=> query_embedding) END > 0.5",
}


@pytest.mark.parametrize("name", WITHOUT_VECTORS)
def test_rows_that_are_found_without_a_vector_too_need_it_in_the_table(name: str) -> None:
    """A table beside is joined, so that they would be lost: it is refused, and derived for a column."""
    body = f"SELECT d.id FROM docs d WHERE {WITHOUT_VECTORS[name]} LIMIT match_count"
    assert "d.new" in derived(body).body.replace('"', "")
    with pytest.raises(Underivable, match=r"rows without a vector.*layout=column"):
        derived(body, beside=True)


@pytest.mark.parametrize(
    "condition",
    [
        "match_count IS NULL OR d.embedding <=> query_embedding < 0.5",
        "d.embedding <=> query_embedding < 0.2 OR d.slug = 'x' AND d.embedding <=> query_embedding < 0.5",
        "d.fts @@ 'x' OR EXISTS (SELECT FROM docs o WHERE o.slug = d.slug AND o.embedding <=> query_embedding < 0.5)",
        "CASE WHEN match_count > 5 THEN d.embedding <=> query_embedding ELSE d.embedding <-> query_embedding END < 0.5",
    ],
)
def test_alternatives_that_all_need_a_vector_do_not(condition: str) -> None:
    """Nor do those that depend on no row."""
    body = derived(f"SELECT d.id FROM docs d WHERE {condition} LIMIT match_count", beside=True).body
    assert body.count("JOIN side") == 1
