"""What stands in the way of tables serving several models, each by name and with the way on."""

from collections.abc import Iterator, Sequence

from psycopg import sql

from tasks.base.words import counted, some
from tasks.shadows.postgres.models import pieces
from tasks.shadows.postgres.models.draft import Asked, Draft
from tasks.stores.postgres import model_tables, models_table, relations
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.fixed_column import UniqueKey
from tasks.stores.postgres.model_tables import ModelTables


def obstacles(connection: Connection, draft: Draft, asked: Asked) -> Iterator[str]:
    """All of them; the tables have not been begun, or only their key is missing."""
    if not draft.begun:
        yield from _of_model(draft, asked)
        yield from _of_models_table(connection, draft, asked)
        yield from _of_rows(connection, draft)
    if not draft.makes_embeddings:
        yield from _of_key(connection, draft.tables, draft.narrow, draft.keyed, asked)


def _of_model(draft: Draft, asked: Asked) -> Iterator[str]:
    fixed, source = draft.fixed, asked.source
    if fixed and source is None:
        yield (
            f"{fixed} holds vectors of {counted(fixed.dimensions or 0, 'dimension')}, and their model is not known: name it with "
            "-p source_model=PROVIDER/MODEL, or -p source_model=unknown"
        )
    elif fixed and source and source.space and source.space.dimensions != fixed.dimensions:
        yield (
            f"{source.name} makes vectors of {counted(source.space.dimensions, 'dimension')}, and {fixed} holds "
            f"vectors of {counted(fixed.dimensions or 0, 'dimension')}: name the model that made those"
        )


def _of_models_table(connection: Connection, draft: Draft, asked: Asked) -> Iterator[str]:
    known, view = draft.known, f"{draft.tables.schema}.{pieces.VIEW}"
    if known is None:
        if relations.exists(connection, sql.Identifier(draft.tables.schema, pieces.VIEW)):
            standing = model_tables.standing(connection)
            of_view = [one for one in model_tables.every(connection) if one.schema == draft.tables.schema]
            if of_view and not any(one in standing for one in of_view):
                yield f"{view} is left of tables that were dropped; to prepare others: DROP VIEW {view}"
            else:
                yield f"{view} is there already, and the view of the registry is called that: rename it first"
        return
    aside = f"ALTER TABLE {view} RENAME TO {pieces.VIEW}_before"
    if missing := models_table.lacks(known):
        yield f"{view} has no column {missing}, so what it says of models cannot be taken over: rename it, {aside}"
    elif twice := _twice([model.name for model in known.models]):
        yield f"{view} has {some(twice)} more than once: keep one row of each"
    elif not asked.adopt:
        yield (
            f"{view} is a table of {counted(len(known.models), 'model')}, and the view of the registry is called that: add "
            f"-p adopt=true, which takes its rows over and keeps it as {view}_before"
        )
    elif relations.exists(connection, sql.Identifier(draft.tables.schema, f"{pieces.VIEW}_before")):
        yield f"{view} would be kept as {view}_before, and there is such a table already: rename or drop that"


def _of_rows(connection: Connection, draft: Draft) -> Iterator[str]:
    vectors = draft.tables.embeddings
    if draft.makes_embeddings:
        return
    if relations.has_column(connection, vectors.identifier, vectors.model):
        if draft.known is None:
            yield (
                f"{vectors} has a column {vectors.model}, and no table {draft.tables.schema}.{pieces.VIEW} says what it "
                "names: name another column for the model with -p roles.embeddings.model=COLUMN"
            )
        elif stranger := _stranger(connection, draft):
            yield f"{vectors} has rows of model {stranger}, which {draft.known} does not have: add it there, or delete them"
    elif draft.fixed is None and relations.count(connection, vectors.identifier):
        yield f"{vectors} has rows and no column of vectors, so their model is not known: empty it, or name another table"


def _of_key(
    connection: Connection, tables: ModelTables, narrow: UniqueKey | None, keyed: bool, asked: Asked
) -> Iterator[str]:
    vectors = tables.embeddings
    if narrow:
        name = narrow.constraint or narrow.index
        if narrow.referenced_by:
            yield (
                f"{some(narrow.referenced_by)} refers to {vectors} by {name}, which allows it one row a chunk and has to go: drop "
                "what refers to it first"
            )
        elif not asked.replace_unique:
            yield (
                f"{name} allows {vectors} one row a chunk, and there will be one a chunk and model; ON CONFLICT ({vectors.chunk}) of the "
                f"application would fail without it: have it name ({vectors.chunk}, {vectors.model}), then add "
                "-p replace_unique=true"
            )
    elif not keyed:
        model = relations.has_column(connection, vectors.identifier, vectors.model)
        columns = [vectors.chunk, vectors.model] if model else [vectors.chunk]
        twice = connection.execute(
            sql.SQL("SELECT {chunk}::text FROM {table} GROUP BY {columns} HAVING count(*) > 1 LIMIT 1").format(
                chunk=sql.Identifier(vectors.chunk),
                table=vectors.identifier,
                columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            )
        ).fetchone()
        if twice:
            yield f"{vectors} has several rows of chunk {twice[0]}: keep one, for there will be one a chunk and model"


def _stranger(connection: Connection, draft: Draft) -> str | None:
    """The id of a model that rows name and the table of models does not have."""
    assert draft.known
    vectors = draft.tables.embeddings
    row = connection.execute(
        sql.SQL("SELECT {model}::text FROM {table} WHERE {model}::text <> ALL (%s) LIMIT 1").format(
            model=sql.Identifier(vectors.model), table=vectors.identifier
        ),
        ([model.id for model in draft.known.models],),
    ).fetchone()
    return row[0] if row else None


def _twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
