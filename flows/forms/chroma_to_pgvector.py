"""The form of chroma-to-pgvector."""

import os
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.forms.shared import Migration


class Chroma(BaseModel):
    """Where the collections are: a directory, or a server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = Field(None, description="a Chroma directory (the one with chroma.sqlite3)")
    host: str | None = Field(None, description="host of a Chroma server, instead of path")
    port: int = Field(8000, ge=1, le=65535, description="port of the server")
    ssl: bool = Field(False, description="whether the server is reached by https")
    tenant: str = Field("default_tenant", description="tenant")
    database: str = Field("default_database", description="Chroma database")
    token: str | None = Field(None, description="name of the environment variable or Secret block that holds the token")

    @model_validator(mode="after")
    def one_place(self) -> "Chroma":
        if self.path and self.host:
            raise ValueError("give chroma.path or chroma.host, not both")
        return self


class ChromaToPgvector(Migration):
    """The form of chroma-to-pgvector."""

    chroma: Chroma = Field(Chroma(), description="where the collections are")
    collections: list[str] | None = Field(None, description="collections to migrate (default: all)")
    schema_: str = Field("public", alias="schema", description="schema of the tables")
    tables: dict[str, str] = Field(
        {}, description="collection → table name, for tables that should be named differently"
    )
    metrics: dict[str, Literal["cosine", "l2", "ip"]] = Field(
        {}, description="collection → metric, for collections that do not state theirs; the plan says which"
    )
    halfvec: bool = Field(False, description="store half-precision vectors: half the space, three significant digits")
    embedder: str | None = Field(
        None, description="model that embeds the documents (default: the vectors are carried over as they are)"
    )
    nul: Literal["quarantine", "escape"] = Field(
        "quarantine",
        description="what to do with a NUL character, which PostgreSQL cannot store: quarantine the row, or store U+2400",
    )

    flow: ClassVar[str] = "chroma-to-pgvector"
    stand_for: ClassVar[dict[str, str]] = {"chroma": "source"}

    def source(self) -> dict[str, Any]:
        options = {name: value for name, value in self.chroma.model_dump().items() if value is not None}
        if self.chroma.path:
            options = {k: options[k] for k in ("tenant", "database")} | {"path": os.path.abspath(self.chroma.path)}
        return {"store": "chroma", **options}

    def missing(self) -> str | None:
        if self.chroma.path or self.chroma.host:
            return None
        return "no source is given: set chroma.path (a Chroma directory) or chroma.host (a Chroma server)"
