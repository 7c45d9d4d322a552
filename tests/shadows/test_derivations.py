"""What is derived from the text of a function, without a database: its body, the argument that is its query, or why there is none."""

import re
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


NAMED_AFTER_IT = {
    "a cast": "d.embedding::text",
    "casts": "(d.embedding::vector(384))::text",
    "an element": "(d.embedding::real[])[1]",
    "a cast by name": "CAST(d.embedding AS text)",
    "a subquery": "(SELECT d.embedding)",
    "the column": "d.embedding",
}


@pytest.mark.parametrize("name", NAMED_AFTER_IT)
def test_a_result_that_is_called_after_the_column_keeps_its_name(name: str) -> None:
    """JSON's keys are names of columns: what takes its name from the old column by way of a cast is called so for the new one."""
    body = (
        f"SELECT row_to_json(t) FROM (SELECT {NAMED_AFTER_IT[name]}, d.id FROM docs d ORDER BY d.embedding <=> query_embedding "
        "LIMIT match_count) t"
    )
    assert re.search(r'"new"[^,]* AS "embedding", d\.id FROM', derived(body).body)
    assert 'AS "embedding" AS' not in derived(body.replace(", d.id", " AS other, d.id")).body


DISTANCES = {
    "of casts": "embedding::halfvec(384) <=> query_embedding::halfvec(384)",
    "of casts in parentheses": "(embedding::halfvec(384)) <-> (query_embedding::halfvec(384))",
    "by a function": "cosine_distance(embedding, query_embedding)",
    "by a function of a schema": "public.inner_product(embedding, query_embedding)",
}


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_however_they_are_written(name: str) -> None:
    """A cast of the column, and pgvector's functions in the place of its operators, are distances of the column."""
    made = derived(f"SELECT id FROM docs ORDER BY {DISTANCES[name]} LIMIT match_count")
    assert made.query == 0
    assert '"new"' in made.body
    assert "384" not in made.body
    assert not re.search(r"\bembedding\b", made.body)


def test_what_perform_reads_is_derived() -> None:
    """PL/pgSQL's PERFORM is a SELECT whose result nobody takes."""
    made = derived(
        "BEGIN PERFORM 1 FROM docs WHERE docs.embedding IS NOT NULL; perform set_config('a.b', '1', true); "
        "RETURN QUERY SELECT id FROM docs ORDER BY docs.embedding <=> query_embedding LIMIT match_count; END",
        language="plpgsql",
    )
    assert made.body.count('"docs"."new"') == 2
    assert "PERFORM 1 FROM docs WHERE" in made.body


def test_a_field_of_a_whole_row_is_refused() -> None:
    """(d).embedding would go on handing out the old vector."""
    with pytest.raises(Underivable, match="out of a whole row"):
        derived("SELECT d.id, (d).embedding FROM docs d ORDER BY d.embedding <=> query_embedding LIMIT match_count")


CHANGES = {
    "UPDATE docs SET slug = 'x' WHERE docs.embedding <=> query_embedding < 0.1 RETURNING id": None,
    "DELETE FROM docs WHERE docs.embedding <=> query_embedding < 0.1 RETURNING id": None,
    "UPDATE docs SET slug = 'x' WHERE id IN (SELECT id FROM docs ORDER BY embedding <=> query_embedding LIMIT 1) RETURNING id": 1,
}


@pytest.mark.parametrize("body", CHANGES)
def test_what_changes_rows_by_vectors_beside_them_is_refused(body: str) -> None:
    """A table that is written cannot be joined; where a subquery finds the rows, that is."""
    assert "new" in derived(body).body
    if joins := CHANGES[body]:
        assert derived(body, beside=True).body.count("JOIN side") == joins
        assert "UPDATE docs SET" in derived(body, beside=True).body
    else:
        with pytest.raises(Underivable, match=r"writes to rows.*layout=column"):
            derived(body, beside=True)
