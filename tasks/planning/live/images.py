"""Plans how the images of a live table get vectors of another space. Writes nothing.

Beside what renamed_columns reads, the request's own parameters are those of ``Asked``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from tasks.base import stored
from tasks.base.errors import UsageError
from tasks.contents.image.content import Image
from tasks.planning import image_estimate, renamed_columns
from tasks.planning.live import sql as live_sql, tables
from tasks.planning.live.tables import examine
from tasks.planning.planned import Draft, Planned
from tasks.runs.plan import Request
from tasks.stores.postgres import row_expressions
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.expression import Expression
from tasks.stores.postgres.live_table import Column, columns_of, name_of_row, place, quoted

__all__ = ["draft", "estimate", "examine"]

USUAL = ("image_path", "image_url", "image", "photo_path", "photo_url", "photo", "picture", "file_path", "path", "url")
"""Names that a column of images goes by."""
ANYWHERE = "https://"
"""Where references are whole URLs."""
CROP = ("x", "y", "width", "height")


@dataclass(frozen=True)
class Asked:
    """What the user said of the images."""

    table: str
    id: tuple[str, ...] | None
    image: str | None
    images: Mapping[str, Any]
    """Options of the content."""
    crop: Mapping[str, str] | None
    """x, y, width and height: a column each."""
    version: str | None
    old_column: str
    new_column: str
    function: str | None
    function_sql: str | None
    label: str | None


def draft(connection: Connection, request: Request, run_id: str) -> Draft:
    """The plan of a new run, its rows not counted yet. Raises UsageError when a table, a column or a function is not there."""
    asked = stored.read(Asked, request.own)
    schema, table = place(connection, asked.table)
    name = f"{schema}.{table}"
    columns = columns_of(connection, schema, table)
    for column in (*(asked.crop or {}).values(), *([asked.version] if asked.version else [])):
        if column not in columns:
            raise UsageError(f"{name} has no column {column!r}; its columns: {', '.join(columns)}")
    key = asked.id or tables.primary_key(connection, schema, table)
    image = asked.image if asked.image is not None else _only_image(name, columns)
    expression = row_expressions.read(connection, image, name, columns)
    kind = _type(connection, sql.Identifier(schema, table), expression, image)
    wanted = tables.Asked(
        table=asked.table,
        id=asked.id,
        text=expression.template + _cropped(asked),
        old_column=asked.old_column,
        new_column=asked.new_column,
        function=asked.function,
        function_sql=asked.function_sql,
        label=asked.label,
        limit=request.limit,
    )
    options = {name: value for name, value in asked.images.items() if value is not None}
    options["allow_hosts"] = tuple(options["allow_hosts"])
    if kind == "bytea":
        if "root" in options or "bucket" in options:
            raise UsageError(
                f"{image!r} of {name} is bytes, so images.root and images.bucket are not for it: leave them out"
            )
        reference = name_of_row([Column(name, columns[name]) for name in key])
        content = Image(
            **options,
            database=request.database,
            table=sql.Identifier(schema, table).as_string(),
            column=expression.sql(),
            key=reference.sql(),
        )
        document = _document(reference, expression, asked)
    else:
        content = Image(**{"root": ANYWHERE, **options})
        document = _document(expression, None, asked)
    wanted = replace(wanted, expression=document, content=content)
    return tables.drafted(connection, request, run_id, [wanted], renamed_columns.refined)


def estimate(connection: Connection, draft: Draft) -> Planned:
    """What it will do, take and cost."""
    plan, draft = draft.plan, tables.timed(connection, draft)
    statements = [line for t in plan.targets for line in live_sql.statements(connection, plan.run_id, t, plan.limited)]
    return image_estimate.estimate(connection, draft, statements)


def _only_image(table: str, columns: Mapping[str, str]) -> str:
    usual = [name for name in USUAL if name in columns]
    if len(usual) == 1:
        return quoted(usual[0])
    raise UsageError(
        f"{table}: which column has the images? Its columns are {', '.join(columns)}: name one with `image`, or give an SQL "
        "expression over several, coalesce(edited_path, original_path)"
    )


def _type(connection: Connection, table: sql.Identifier, expression: Expression, image: str) -> str:
    """Of the expression. Raises UsageError where the server does not take it, or it is neither text nor bytes."""
    query = sql.SQL("SELECT pg_typeof({})::text FROM (SELECT) AS none LEFT JOIN {} AS t ON false").format(
        sql.SQL(expression.sql("t")), table
    )
    try:
        row = connection.execute(query).fetchone()
    except psycopg.Error as error:
        raise UsageError(f"image {image!r}: {str(error).splitlines()[0]}") from error
    assert row
    if row[0] not in ("text", "character varying", "character", "bytea", "uuid", "unknown"):
        raise UsageError(
            f"image {image!r} is {row[0]}, neither the reference of an image, a text, nor its bytes, bytea"
        )
    return str(row[0])


def _cropped(asked: Asked) -> str:
    """What the names of documents have behind the image: what else makes a row another one."""
    crop = f" crop {', '.join(f'{{{asked.crop[name]}}}' for name in CROP)}" if asked.crop else ""
    return crop + (f" version {{{asked.version}}}" if asked.version else "")


def _document(reference: Expression, picture: Expression | None, asked: Asked) -> Expression:
    """What tasks/contents/image/references.py reads: the bare reference, or a JSON object of it and more. ``picture`` is the
    bytes, where the table has them."""
    if picture is None and not asked.crop and not asked.version:
        return reference
    fields: list[str | Expression] = ["'image', (", reference, ")::text"]
    if picture:
        fields += [", 'sha256', encode(sha256(", picture, "), 'hex'), 'bytes', octet_length(", picture, ")"]
    if asked.crop:
        numbers = [part for name in CROP for part in (", ", Expression(("", asked.crop[name], "")))][1:]
        fields += [", 'crop', CASE WHEN num_nonnulls(", *numbers, ") > 0 THEN jsonb_build_array(", *numbers, ") END"]
    if asked.version:
        fields += [", 'version', (", Expression(("", asked.version, "")), ")::text"]
    there = ("(", picture, ")") if picture else ("nullif((", reference, ")::text, '')")
    return Expression.of(
        "CASE WHEN ", *there, " IS NOT NULL THEN jsonb_strip_nulls(jsonb_build_object(", *fields, "))::text END"
    )
