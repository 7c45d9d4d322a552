"""What a flow can be asked for: the fields of its form, of ``-p`` and of a parameter file. Defaults stand here only."""

import os
import warnings
from abc import abstractmethod
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.forms.decimals import Number, OptionalNumber
from flows.forms.form import changed
from tasks.base.settings import DEFAULT_DATABASE
from tasks.runs.plan import Asked, CollectionsRequest, ColumnsRequest, Request

# Prefect builds a model from a flow's signature, and ours has a parameter called schema.
warnings.filterwarnings("ignore", message='Field name "schema" in .* shadows an attribute')

Cutover = Literal["manual", "ask", "auto"]
LIMITED = ("openai/", "sentence-transformers/")
"""Providers whose models take texts of a limited length, and ``on_too_long``."""


class Gates(BaseModel):
    """What must hold before the switch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_recall: Number = Field(0.9, ge=0, le=1, description="recall of the new index against exact search, at least")
    recall_k: int = Field(10, ge=1, le=100, description="neighbours a query that recall is taken over")
    min_row_cosine: Number = Field(
        0.999, ge=-1, le=1, description="cosine of every sampled row with its source, at least"
    )
    sample: int = Field(
        300, ge=1, le=10_000, description="rows sampled; 299 clean ones exclude a 1 % fault rate at 95 %"
    )
    max_quarantined: int = Field(0, ge=0, description="quarantined rows that are accepted")
    max_deleted: Number = Field(0.5, ge=0, le=1, description="share of a live table that a sync may delete")


class GatesOfRun(BaseModel):
    """The same, for what is done with a run that has its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_recall: OptionalNumber = Field(
        None, ge=0, le=1, description="recall of the index against exact search, at least"
    )
    recall_k: int | None = Field(None, ge=1, le=100, description="neighbours a query that recall is taken over")
    min_row_cosine: OptionalNumber = Field(
        None, ge=-1, le=1, description="cosine of every sampled row with its source, at least"
    )
    sample: int | None = Field(None, ge=1, le=10_000, description="rows sampled")
    max_quarantined: int | None = Field(None, ge=0, description="quarantined rows that are accepted")
    max_deleted: OptionalNumber = Field(None, ge=0, le=1, description="share of a live table that a sync may delete")


def stated(gates: Gates | GatesOfRun) -> dict[str, Any]:
    """The gates that somebody stated. Prefect's pages send every field of a form: of a whole set only those count that
    are not the defaults."""
    set_ = gates.model_dump(exclude_unset=True)
    whole = set_.keys() == type(gates).model_fields.keys()
    return {n: v for n, v in set_.items() if v is not None and not (whole and v == type(gates).model_fields[n].default)}


class Chroma(BaseModel):
    """Where the collections are: a directory, or a server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = Field(None, description="a Chroma directory (the one with chroma.sqlite3)")
    host: str | None = Field(None, description="host of a Chroma server, instead of path")
    port: int = Field(8000, ge=1, le=65535, description="port of the server")
    ssl: bool = Field(False, description="whether the server speaks https")
    tenant: str = Field("default_tenant", description="tenant")
    database: str = Field("default_database", description="Chroma database")
    token: str | None = Field(None, description="name of the environment variable or Secret block that holds the token")

    @model_validator(mode="after")
    def one_place(self) -> "Chroma":
        if self.path and self.host:
            raise ValueError("give chroma.path or chroma.host, not both")
        return self


class Base(BaseModel):
    """What every flow takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    database: str = Field(
        DEFAULT_DATABASE, description="name of the environment variable or Secret block with the PostgreSQL URL"
    )


class OfRun(Base):
    """The form of the flows that take up a run there is."""

    run_id: str = Field(description="name of the run")


class Gated(Base):
    """What the flows that verify take."""

    gates: Gates | GatesOfRun
    database_share: Number = Field(
        0.2, gt=0, le=1, description="share of the time to work in the database while others use it; 1 gives no way"
    )


class Checked(OfRun, Gated):
    """The form of cutover and verify."""

    gates: GatesOfRun = Field(GatesOfRun(), description="what must hold; the run's own gates where left out")


class Contract(OfRun):
    """The form of contract."""

    rollback_days: OptionalNumber = Field(
        None, ge=0, description="days after the cutover in which nothing old is dropped; the run's own when left out"
    )


class Restore(OfRun):
    """The form of restore."""

    into: str = Field(description="a new Chroma directory, or the folder for the JSON lines")
    format: Literal["chroma", "jsonl"] = Field("chroma", description="what to write")


class Shared(Gated):
    """What every migration takes."""

    gates: Gates = Field(Gates(), description="what must hold before the switch")
    run_id: str | None = Field(None, description="name of the run; a run that exists is resumed")
    batch_ids: list[int] | None = Field(None, description="only these batches, for a rerun")
    batch_rows: int = Field(
        2_000, ge=1, le=100_000, description="rows a batch: the unit of checkpoint, retry and rerun"
    )
    limit: int | None = Field(
        None, ge=0, description="a smoke run over the first rows; it never cuts over (0: everything)"
    )
    workers: int = Field(2, ge=1, le=64, description="chunks of batches worked on at once")
    cutover: Cutover = Field("manual", description="after verification: stop, ask for approval, or switch")
    rollback_days: Number = Field(7, ge=0, description="days after the cutover in which nothing old is dropped")
    budget_usd: OptionalNumber = Field(
        None, ge=0, description="dollars that the run may spend; it stops before they are passed"
    )


class Migration(Shared):
    """What a flow that migrates makes of its form."""

    @abstractmethod
    def request(self) -> Request:
        """The request that a plan is made from."""

    @abstractmethod
    def given(self) -> set[str]:
        """The names of the request's fields that were set: only those can contradict a frozen plan."""

    def missing(self) -> str | None:
        """What a new run needs and was not given, in plain words."""
        return None


class LiveTable(BaseModel):
    """One table that goes on being used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(description='the table as SQL names it: docs, schema.docs or "Quoted Name"')
    id: list[str] | str | None = Field(None, description="columns that tell rows apart; the primary key when left out")
    text: list[str] | str | None = Field(
        None,
        description="what is embedded: a column, several, or a template such as {title}: {body}; the only column of text when left out",
    )
    old_column: str = Field("embedding", description="column of the vectors there are")
    new_column: str = Field("embedding_1536", description="column for the new vectors")
    function: str | None = Field(None, description="search function to switch; match_TABLE when left out")
    limit: int | None = Field(None, ge=0, description="a smoke run over this many of its rows (0: everything)")


class Text384To1536(Migration):
    """The form of text-384-to-1536."""

    targets: list[LiveTable] = Field(
        [LiveTable(table="bora_docs"), LiveTable(table="phrases"), LiveTable(table="lexicon")],
        description="the tables to migrate",
    )
    layout: Literal["column", "side_table"] = Field(
        "column", description="new vectors in a column of the table, or in a table beside it, which loads far faster"
    )
    embedder: str = Field(
        "openai/text-embedding-3-small", description="model of the new vectors: provider/model[?option=value]"
    )
    old_embedder: str | None = Field(
        None,
        description="model of the old vectors; where it is named they are checked, and kept current after the switch",
    )
    on_too_long: Literal["quarantine", "truncate", "mean"] = Field(
        "quarantine",
        description="a text longer than the model takes: quarantine it, cut it, or take the mean of its parts",
    )

    similarity_threshold: OptionalNumber = Field(
        None, ge=-1, le=1, description="the application's threshold for the old vectors; the report translates it"
    )
    queries: str | None = Field(
        None,
        description='a file of JSON lines {"query": text, "relevant": {id: grade}}; the report compares old and new',
    )

    def request(self) -> ColumnsRequest:
        model = self.embedder
        if model.startswith(LIMITED) and "on_too_long=" not in model and self.on_too_long != "quarantine":
            model += f"{'&' if '?' in model else '?'}on_too_long={self.on_too_long}"
        return ColumnsRequest(
            flow="text-384-to-1536",
            source={"store": "live_tables"},
            database=self.database,
            embedder=model,
            batch_rows=self.batch_rows,
            limit=self.limit or None,
            rollback_days=self.rollback_days,
            targets=tuple(_asked(t) for t in self.targets),
            layout=self.layout,
            old_embedder=self.old_embedder,
            similarity_threshold=self.similarity_threshold,
            queries=self.queries and os.path.abspath(self.queries),
            budget_usd=self.budget_usd,
        )

    def given(self) -> set[str]:
        return {"embedder" if name == "on_too_long" else name for name in changed(self)} | {"source"}


def _asked(table: LiveTable) -> Asked:
    def listed(value: list[str] | str) -> list[str]:
        return [value] if isinstance(value, str) else value

    text = table.text
    if text is not None and not (isinstance(text, str) and "{" in text):
        text = "\n\n".join(f"{{{name}}}" for name in listed(text))
    return Asked(
        table=table.table,
        id=None if table.id is None else tuple(listed(table.id)),
        text=text,
        old_column=table.old_column,
        new_column=table.new_column,
        function=table.function,
        limit=table.limit or None,
    )


class ChromaToPgvector(Migration):
    """The form of chroma-to-pgvector."""

    chroma: Chroma = Field(Chroma(), description="where the collections are")
    collections: list[str] | None = Field(None, description="collections to migrate; all when left out")
    schema_: str = Field("public", alias="schema", description="schema of the tables")
    tables: dict[str, str] = Field({}, description="collection → table name, where the default is not wanted")
    metrics: dict[str, Literal["cosine", "l2", "ip"]] = Field(
        {}, description="collection → metric, where the source does not tell; the plan says which"
    )
    halfvec: bool = Field(False, description="store half-precision vectors: half the space, three digits")
    embedder: str | None = Field(
        None, description="model that embeds the documents; the vectors are carried over when it is left out"
    )
    nul: Literal["quarantine", "escape"] = Field(
        "quarantine", description="NUL characters, which PostgreSQL cannot store: quarantine the row, or store U+2400"
    )

    def request(self) -> CollectionsRequest:
        options = {k: v for k, v in self.chroma.model_dump().items() if v is not None}
        if self.chroma.path:
            options = {k: options[k] for k in ("tenant", "database")} | {"path": os.path.abspath(self.chroma.path)}
        return CollectionsRequest(
            flow="chroma-to-pgvector",
            source={"store": "chroma", **options},
            collections=None if self.collections is None else tuple(self.collections),
            database=self.database,
            schema=self.schema_,
            tables=self.tables,
            metrics=dict(self.metrics),
            halfvec=self.halfvec,
            embedder=self.embedder,
            batch_rows=self.batch_rows,
            limit=self.limit or None,
            nul=self.nul,
            budget_usd=self.budget_usd,
            rollback_days=self.rollback_days,
        )

    def given(self) -> set[str]:
        names = {"schema" if name == "schema_" else name for name in changed(self)}
        return names - {"chroma"} | ({"source"} if self.chroma.path or self.chroma.host else set())

    def missing(self) -> str | None:
        if self.chroma.path or self.chroma.host:
            return None
        return "no source is given: chroma needs a path (a Chroma directory) or a host (a Chroma server)"


FLOWS: dict[str, type[Migration]] = {"chroma-to-pgvector": ChromaToPgvector, "text-384-to-1536": Text384To1536}
"""The migrations, by the names that people give them."""
