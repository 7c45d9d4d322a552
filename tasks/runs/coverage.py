"""How many chunks each model has vectors of: counters that the tables' triggers keep, equal to a count at any time."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from tasks.runs.registry import RegisteredModel, listed
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.live_table import literal, quoted
from tasks.stores.postgres.model_tables import ModelTables


@dataclass(frozen=True)
class Coverage:
    """Of one model."""

    chunks: int
    """Those that say something."""
    with_vector: int
    refused: int
    """Those that the model cannot embed."""

    @property
    def missing(self) -> int:
        return max(0, self.chunks - self.with_vector - self.refused)

    @property
    def share(self) -> float:
        """Of the chunks that the model can embed, those that have a vector; 1 where there are none."""
        able = self.chunks - self.refused
        return min(1.0, self.with_vector / able) if able > 0 else 1.0


def covered(connection: Connection, tables: ModelTables) -> dict[int, Coverage]:
    """Number of a model → what it covers."""
    rows = connection.execute(
        "SELECT m.model, coalesce(sum(c.change) FILTER (WHERE c.model = 0), 0)::bigint, "
        "coalesce(sum(c.change) FILTER (WHERE c.model = m.model AND NOT c.refused), 0)::bigint, "
        "coalesce(sum(c.change) FILTER (WHERE c.model = m.model AND c.refused), 0)::bigint "
        "FROM vecferry.model m LEFT JOIN (SELECT model, refused, sum(change) AS change FROM vecferry.coverage "
        "WHERE set_id = %(set)s GROUP BY 1, 2) AS c ON c.model IN (0, m.model) "
        "WHERE m.set_id = %(set)s AND m.state <> 'retired' GROUP BY m.model ORDER BY m.model",
        {"set": tables.set_id},
    ).fetchall()
    return {number: Coverage(*counts) for number, *counts in rows}


def set_refused(connection: Connection, tables: ModelTables, number: int, rows: int) -> None:
    """Has the counters say that the model of that number refuses so many chunks."""
    connection.execute(
        "INSERT INTO vecferry.coverage (set_id, model, refused, change) SELECT %(set)s, %(model)s, true, %(rows)s - was "
        "FROM (SELECT coalesce(sum(change), 0)::bigint FROM vecferry.coverage WHERE set_id = %(set)s AND model = %(model)s "
        "AND refused) AS s (was) WHERE was <> %(rows)s",
        {"set": tables.set_id, "model": number, "rows": rows},
    )


def note_counts(connection: Connection, tables: ModelTables) -> None:
    """Has the triggers count what the registry says now."""
    known = listed(connection, tables)
    connection.execute(
        "UPDATE vecferry.model_tables SET counts_of_chunk = %s, counts_of_embedding = %s WHERE set_id = %s",
        (counts_of_chunk(tables, known), counts_of_embedding(tables, known), tables.set_id),
    )


def counts_of_chunk(tables: ModelTables, known: Sequence[RegisteredModel]) -> str:
    """SQL of what a chunk ``r`` counts for: 0 where it says something, and the model whose vector it has itself."""
    says = f"(CASE WHEN {_says(tables, 'r')} THEN 0::bigint END)"
    own = [
        f"(CASE WHEN {_says(tables, 'r')} AND r.{quoted(m.column)} IS NOT NULL THEN {m.number}::bigint END)"
        for m in known
        if lies_with_chunks(tables, m)
    ]
    return ", ".join([says, *own])


def counts_of_embedding(tables: ModelTables, known: Sequence[RegisteredModel]) -> str:
    """SQL of what a row ``r`` of the table of vectors counts for: its model, where it has a vector of it."""
    branches = [
        f"WHEN {literal(m.id)} THEN CASE WHEN r.{quoted(m.column)} IS NOT NULL THEN {m.number}::bigint END"
        for m in known
        if not lies_with_chunks(tables, m)
    ]
    if not branches:
        return "(NULL::bigint)"
    return f"(CASE r.{quoted(tables.embeddings.model)}::text {' '.join(branches)} END)"


def chunk_changes(tables: ModelTables, known: Sequence[RegisteredModel]) -> str:
    """SQL: an UPDATE of a chunk changes what it counts for."""
    own = [quoted(m.column) for m in known if lies_with_chunks(tables, m)]
    old, new = (
        ", ".join([f"NOT ({_says(tables, row)})", *(f"{row}.{column} IS NULL" for column in own)])
        for row in ("OLD", "NEW")
    )
    return f"ROW({old}) IS DISTINCT FROM ROW({new})"


def embedding_changes(tables: ModelTables, known: Sequence[RegisteredModel]) -> str:
    """SQL: an UPDATE of a row of the table of vectors changes what it counts for."""
    columns = dict.fromkeys(quoted(m.column) for m in known if not lies_with_chunks(tables, m))
    old, new = (
        ", ".join([f"{row}.{quoted(tables.embeddings.model)}", *(f"{row}.{column} IS NULL" for column in columns)])
        for row in ("OLD", "NEW")
    )
    return f"ROW({old}) IS DISTINCT FROM ROW({new})"


def count_once(connection: Connection, tables: ModelTables) -> None:
    """Counts what was there before the triggers were. Whatever one snapshot shows of the tables, and not of what the triggers
    noted, was: so nobody has to wait."""
    known = listed(connection, tables)
    sides = (
        (tables.chunks.identifier, counts_of_chunk(tables, known)),
        (tables.embeddings.identifier, counts_of_embedding(tables, known)),
    )
    counted = sql.SQL(" UNION ALL ").join(
        sql.SQL(
            "SELECT number, count(*) AS change FROM {} AS r, LATERAL (VALUES {}) AS c (number) GROUP BY number"
        ).format(table, sql.SQL(counts))
        for table, counts in sides
    )
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(
            sql.SQL(
                "INSERT INTO vecferry.coverage (set_id, model, change) SELECT {set}, number, sum(change) FROM ({counted} "
                "UNION ALL SELECT model, -change FROM vecferry.coverage WHERE set_id = {set} AND NOT refused) AS changes "
                "WHERE number IS NOT NULL GROUP BY number HAVING sum(change) <> 0"
            ).format(set=sql.Literal(tables.set_id), counted=counted)
        )
        connection.execute("UPDATE vecferry.model_tables SET counted = true WHERE set_id = %s", (tables.set_id,))


def is_counted(connection: Connection, tables: ModelTables) -> bool:
    """Whether the counters tell of all that is there."""
    query = "SELECT counted FROM vecferry.model_tables WHERE set_id = %s"
    return connection.execute(query, (tables.set_id,)).fetchone() == (True,)


def lies_with_chunks(tables: ModelTables, model: RegisteredModel) -> bool:
    """Whether its vectors lie in a column of the chunks themselves."""
    return (model.place_schema, model.place_table) == (tables.chunks.schema, tables.chunks.table)


def _says(tables: ModelTables, row: str) -> str:
    return f"nullif({row}.{quoted(tables.chunks.text)}, '') IS NOT NULL"
