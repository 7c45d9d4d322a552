"""SQL expressions over one row: what is taken, and what is refused by name."""

import pytest

from tasks.base.errors import UsageError
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.expression import Expression
from tasks.stores.postgres.row_expressions import read

COLUMNS = {"path": "text", "edited": "text", "Größe": "text", "meta": "jsonb", "made": "timestamp", "n": "integer"}


@pytest.mark.parametrize(
    ("expression", "columns", "value"),
    [
        ("path", ["path"], "a.jpg"),
        ("coalesce(edited, path)", ["edited", "path"], "a.jpg"),
        ("'x/' || PATH || '.png'", ["path"], "x/a.jpg.png"),
        ('"Größe" || path', ["Größe", "path"], "große.a.jpg"),
        ("meta ->> 'path'", ["meta"], "m.jpg"),
        ("CASE WHEN n > 3 THEN lower(path) ELSE upper(path) END", ["n", "path"], "a.jpg"),
        ("nullif(path, 'ä') || n::text", ["path", "n"], "a.jpg7"),
        ("pg_catalog.replace(path, 'a', 'path')", ["path"], "path.jpg"),
        ("path || 'path' -- path", ["path"], "a.jpgpath"),
    ],
)
def test_an_expression_over_a_row(connection: Connection, expression: str, columns: list[str], value: str) -> None:
    """Its columns are known, and it means the same of a row that has a name."""
    expressed = read(connection, expression, "t", COLUMNS)
    assert expressed.columns == columns
    rows = "(VALUES ('a.jpg', NULL::text, 'große.', '{\"path\": \"m.jpg\"}'::jsonb, 7)) AS r (path, edited, \"Größe\", meta, n)"
    assert connection.execute(f"SELECT {expressed.sql('r')} FROM {rows}").fetchone() == (value,)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "not an SQL expression"),
        ("path, edited", "not an SQL expression"),
        ("path FROM t", "more than an SQL expression"),
        ("path; DROP TABLE t", "not an SQL expression"),
        ("path) FROM t; --", "not an SQL expression"),
        ("(SELECT path)", "SubLink"),
        ("now()::text || path", "now is not immutable"),
        ("random()::text || path", "random is not immutable"),
        ("concat(path, edited)", r"join texts with \|\|"),
        ("current_user || path", "SQLValueFunction"),
        ("count(path)", "count is not immutable"),
        ("row_number() over () || path", "row_number"),
        ("t.path", "by themselves"),
        ("path || $1", "ParamRef"),
        ("photo", "has no column 'photo'; its columns: path"),
        ("'a.jpg'", "names no column"),
        ("missing_function(path)", "no function missing_function"),
        ("path || '%'", r"chr\(37\)"),
        ("path || '{x}'", r"chr\(123\)"),
        ("path AS p", "more than"),
        ("*", "by themselves"),
    ],
)
def test_what_is_no_expression_over_a_row(connection: Connection, expression: str, reason: str) -> None:
    """It is refused by name, and nothing of it is run."""
    with pytest.raises(UsageError, match=reason):
        read(connection, expression, "t", COLUMNS)


def test_sql_is_cut_at_its_columns() -> None:
    """A comment at its end does not swallow what stands behind it."""
    assert Expression(("", "path", " -- x")).sql("n") == '(n."path" -- x\n)'
