"""The form of text-384-to-1536."""

import os
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.forms.decimals import OptionalNumber
from flows.forms.shared import Migration

LIMITED = ("openai/", "sentence-transformers/")
"""Providers whose models take texts of a limited length, and ``on_too_long``."""


class LiveTable(BaseModel):
    """One table that goes on being used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(description='the table as SQL names it: docs, schema.docs or "Quoted Name"')
    id: list[str] | str | None = Field(None, description="columns that identify a row (default: the primary key)")
    text: list[str] | str | None = Field(
        None,
        description="what is embedded: a column, several, or a template such as {title}: {body} (default: the only text column)",
    )
    old_column: str = Field("embedding", description="column of the old vectors")
    new_column: str = Field("embedding_1536", description="column of the new vectors")
    function: list[str] | str | None = Field(
        None, description="search function to switch, or several: a name or schema.name (default: match_TABLE)"
    )
    function_sql: dict[str, str] | str | None = Field(
        None, description="body of that function for the new vectors, or of each by name (default: derived)"
    )
    label: str | None = Field(
        None,
        description="column of what a row is about; the report says how often its nearest row has the same, old and new",
    )
    limit: int | None = Field(None, ge=0, description="a smoke run over this many of its rows (0: all rows)")

    def resolved(self) -> dict[str, Any]:
        """The same with lists of columns as lists, the text as a template, and no limit of 0."""
        text = self.text
        if text is not None and not (isinstance(text, str) and "{" in text):
            text = "\n\n".join(f"{{{name}}}" for name in _listed(text))
        key = None if self.id is None else _listed(self.id)
        return {**self.model_dump(), "id": key, "text": text, "limit": self.limit or None}


def _listed(value: list[str] | str) -> list[str]:
    return [value] if isinstance(value, str) else value


class Text384To1536(Migration):
    """The form of text-384-to-1536."""

    targets: list[LiveTable] = Field(
        [LiveTable(table="bora_docs"), LiveTable(table="phrases"), LiveTable(table="lexicon")],
        description="the tables to migrate",
    )
    layout: Literal["column", "side_table"] = Field(
        "column",
        description="where the new vectors are stored: in a column of the table, or in a table beside it, which loads far faster",
    )
    embedder: str = Field(
        "openai/text-embedding-3-small", description="model of the new vectors: provider/model[?option=value]"
    )
    old_embedder: str | None = Field(
        None,
        description="model of the old vectors; with it they are checked, and kept up to date after the switch",
    )
    on_too_long: Literal["quarantine", "truncate", "mean"] = Field(
        "quarantine",
        description="what to do with a text longer than the model takes: quarantine it, truncate it, or take the mean of its parts",
    )

    similarity_threshold: OptionalNumber = Field(
        None,
        ge=-1,
        le=1,
        description="the application's similarity threshold for the old vectors; the report translates it",
    )
    queries: str | None = Field(
        None,
        description='a file of JSON lines {"query": text, "relevant": {id: grade}}; the report compares old and new',
    )
    probe_settings: dict[str, str] = Field(
        {},
        description="settings that policies and filters read, for trying the search function: {request.jwt.claims: …}",
    )
    workers: int = Field(
        3,  # one waits for its provider or the database half of the time: with two, a processor of two had nothing to do
        ge=1,
        le=64,
        description="chunks of batches to work on at once",
    )

    flow: ClassVar[str] = "text-384-to-1536"
    stand_for: ClassVar[dict[str, str]] = {"on_too_long": "embedder"}

    def source(self) -> dict[str, Any]:
        return {"store": "live_tables"}

    def resolved(self) -> dict[str, Any]:
        model = self.embedder
        if model.startswith(LIMITED) and "on_too_long=" not in model and self.on_too_long != "quarantine":
            model += f"{'&' if '?' in model else '?'}on_too_long={self.on_too_long}"
        queries = self.queries and os.path.abspath(self.queries)
        return {"embedder": model, "queries": queries, "targets": [table.resolved() for table in self.targets]}

    def places(self) -> list[tuple[str, str]]:
        return [(table.table, table.new_column) for table in self.targets]
