"""A live table for the flow text-384-to-1536, what it should say, and the ``Migration`` that the lifecycle harness drives."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flows.catch_up import catch_up
from flows.forms.form import parse
from flows.forms.text_384_to_1536 import Text384To1536
from flows.text_384_to_1536 import text_384_to_1536
from tasks.embedders.hashing import HashingEmbedder
from tasks.embedders.interface import Embedder
from tasks.planning.planned import Planned
from tasks.planning.registry import make_plan
from tasks.stores.postgres.connection import Connection
from tests.helpers.lifecycle import Migration, Rows, tables

OLD, NEW = HashingEmbedder(384), HashingEmbedder(1536)
LAYOUTS = ("column", "side_table")
KEYS = {
    "bigint": ("id bigint PRIMARY KEY", "{n}"),
    "uuid": ("id uuid PRIMARY KEY", "'00000000-0000-0000-0000-{n:012d}'"),
    "text": ("id text PRIMARY KEY", "'it''s \"{n}\" %%'"),
    "varchar": ("id varchar(40) PRIMARY KEY", "'key {n}'"),
    "composite": ('tenant text, "No." integer, PRIMARY KEY (tenant, "No.")', "'t{n}', {n}"),
}


def text_vector(values: Any) -> str:
    return "[" + ",".join(f"{x:.6g}" for x in values) + "]"


def rounded(vector: np.ndarray) -> list[float]:
    return np.round(vector.astype(float), 4).tolist()


Embed = Callable[[Sequence[str]], np.ndarray]
"""float32[n, d] of n texts."""


def vectors_of(embedder: Embedder) -> Embed:
    return lambda texts: embedder.embed(texts).whole


class Table:
    """A live table ``docs`` with an old column, its index and its search function, and an application that writes to it:
    it makes the old vectors itself as long as those are the ones meant, and no vectors afterwards."""

    def __init__(
        self,
        connection: Connection,
        key: str = "bigint",
        rows: int = 60,
        old: Embed | None = None,
        new: Embed | None = None,
    ) -> None:
        self.old, self.new = old or vectors_of(OLD), new or vectors_of(NEW)
        self.connection, (self.columns, self.value) = connection, KEYS[key]
        self.names = ["tenant", '"No."'] if key == "composite" else ["id"]
        kinds = {"bigint": "bigint", "uuid": "uuid", "text": "text", "varchar": "varchar"}
        returned = ", ".join(
            f"{n} {k}"
            for n, k in zip(self.names, ["text", "integer"] if key == "composite" else [kinds[key]], strict=True)
        )
        connection.execute(
            f"CREATE TABLE docs ({self.columns}, title text, content text, seen int DEFAULT 0, embedding vector(384))"
        )
        connection.execute(
            f"CREATE FUNCTION match_docs(query_embedding vector(384), match_threshold float, match_count int DEFAULT 5) "
            f"RETURNS TABLE ({returned}, content text, similarity float) LANGUAGE sql STABLE AS $$ "
            f"SELECT {', '.join(f'd.{n}' for n in self.names)}, d.content, 1 - (d.embedding <=> query_embedding) FROM docs d "
            f"WHERE 1 - (d.embedding <=> query_embedding) > match_threshold ORDER BY d.embedding <=> query_embedding "
            f"LIMIT match_count $$"
        )
        self.next = 0
        texts = [self._text(n) for n in range(rows)]
        vectors = self.old([text or "nothing" for text in texts]) if rows else []
        made = [("t", text, text_vector(vector)) for text, vector in zip(texts, vectors, strict=True)]
        if made:
            every = ", ".join(f"({self.value.format(n=n)}, %s, %s, %s)" for n in range(rows))
            into = f"docs ({', '.join(self.names)}, title, content, embedding)"
            connection.execute(f"INSERT INTO {into} VALUES {every}", [value for row in made for value in row])
        connection.execute("CREATE INDEX docs_old ON docs USING hnsw (embedding vector_cosine_ops)")

    def insert(self, n: int | None = None) -> None:
        n = self.next if n is None else n
        text = self._text(n)
        columns, values = [*self.names, "title", "content"], ["t", text]
        if not self.switched():
            columns, values = [*columns, "embedding"], [*values, self.old_vector(text)]
        self.connection.execute(
            f"INSERT INTO docs ({', '.join(columns)}) VALUES ({self.value.format(n=n)}{', %s' * len(values)})", values
        )

    def _text(self, n: int) -> str | None:
        """Of a row that is about to be made."""
        self.next = max(self.next, n + 1)
        if n % 11 == 10:
            return None
        return "" if n % 13 == 12 else f"what row {n} says of topic {n % 7}, version {self.next}"

    def say(self, n: int, text: str | None) -> None:
        """The application changes a text."""
        if self.switched():
            self.do("UPDATE docs SET content = %s", n, text)
        else:
            self.do("UPDATE docs SET content = %s, embedding = %s", n, text, self.old_vector(text))

    def old_vector(self, text: str | None) -> str:
        return text_vector(self.old([text or "nothing"])[0])

    def active(self) -> str | None:
        """The column of the vectors that are meant, by the row that tells the application."""
        if self.connection.execute("SELECT to_regclass('vecferry.active_space')").fetchone() == (None,):
            return None
        row = self.connection.execute("SELECT column_name FROM vecferry.active_space").fetchone()
        return row[0] if row else None

    def switched(self) -> bool:
        """Whether other vectors are meant than those that the application makes."""
        return self.active() not in (None, "embedding")

    def where(self, n: int) -> str:
        return f"({', '.join(self.names)}) = ({self.value.format(n=n)})"

    def do(self, statement: str, n: int, *values: Any) -> None:
        self.connection.execute(f"{statement} WHERE {self.where(n)}", values)

    def expected(self, embed: Embed | None = None) -> Rows:
        """Every row with a text, and the vector of that text."""
        rows = self.connection.execute(
            f"SELECT ({', '.join(self.names)})::text, content FROM docs WHERE content <> ''"
        ).fetchall()
        vectors = (embed or self.new)([text for _, text in rows])
        return {name: rounded(vector) for (name, _), vector in zip(rows, vectors, strict=True)}

    def vectors(self, column: str = "embedding_1536") -> Rows:
        """Every row with a new vector, whether that lies in the table or beside it."""
        beside = self.connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = %s "
            "WHERE c.relname LIKE 'docs%%rows' AND c.relkind = 'v'",
            (column,),
        ).fetchone()
        rows = self.connection.execute(
            f"SELECT ({', '.join(self.names)})::text, {column}::text FROM {beside[0] if beside else 'docs'} "
            f"WHERE {column} IS NOT NULL"
        ).fetchall()
        return {name: rounded(np.array(v[1:-1].split(","), np.float32)) for name, v in rows}


def migration_of(
    table: Table, layout: str, embedder: str = "hashing/1536", columns: tuple[str, str] | None = None, **more: Any
) -> Migration:
    """The flow over ``table`` with these parameters, and ``columns`` of old and new vectors that are not the defaults; the
    application's changes are those of its life."""
    connection, (old, new) = table.connection, columns or ("embedding", "embedding_1536")
    embed = vectors_of(HashingEmbedder(int(embedder.split("/")[1]))) if columns else None
    parameters: dict[str, Any] = {
        "targets": [{"table": "docs", "text": "content", "old_column": old, "new_column": new}],
        "embedder": embedder,
        "layout": layout,
        **more,
    }
    step = iter(range(1, 50))

    def change() -> None:
        n = next(step)
        table.insert()
        table.say(20 + n, f"changed {n}")
        table.do("UPDATE docs SET seen = seen + 1", 21 + n)
        table.do("DELETE FROM docs", 30 + n)
        table.do("DELETE FROM docs", 40 + n)
        table.insert(40 + n)
        table.say(50 + n, None)

    def plan() -> Planned:
        return make_plan(connection, parse(Text384To1536, parameters).request(), "life")

    return Migration(
        run=lambda run_id: text_384_to_1536(**{"batch_rows": 20, **parameters}, run_id=run_id),
        plan=plan,
        expected=lambda: table.expected(embed),
        served=lambda: table.vectors(new) if table.active() == new else None,
        change=change,
        writes=lambda: tables(connection),
        catch_up=lambda run_id: catch_up(run_id=run_id),
        lives_on=layout == "side_table",
    )
