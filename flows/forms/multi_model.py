"""The form of multi-model."""

import os
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from flows.forms.decimals import OptionalNumber
from flows.forms.models import Roles
from flows.forms.shared import Migration


class Documents(BaseModel):
    """Which documents are migrated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filter: str | None = Field(
        None, description="SQL condition over the columns of the documents: source = 'wiki' AND length(title) > 3"
    )
    ids: list[str | int] | str | int | None = Field(None, description="keys of documents, one or several")
    first: int | None = Field(
        None,
        ge=1,
        description="this many documents, the first ones by `order_by`; later documents that sort before them are added",
    )

    def resolved(self) -> dict[str, Any]:
        """The same with the keys as a list."""
        ids = self.ids if isinstance(self.ids, list | None) else [self.ids]
        return {**self.model_dump(), "ids": None if ids is None else [str(one) for one in ids]}


class MultiModel(Migration):
    """The form of multi-model."""

    source_model: str | None = Field(
        None,
        description="model whose vectors the documents have, as `vecferry models list` has it (default: the active one)",
    )
    target_model: str | None = Field(None, description="model whose vectors they get, as `vecferry models list` has it")
    documents: Documents = Field(Documents(), description="which documents are migrated (default: all)")
    order_by: str | None = Field(
        None,
        description="column of the documents that `documents.first` goes by, and ASC or DESC (default: created_at DESC)",
    )
    roles: Roles = Field(Roles(), description="the tables that are meant, where there are several sets of them")
    queries: str | None = Field(
        None,
        description='a file of JSON lines {"query": text, "relevant": {chunk: grade}}; the report compares both models',
    )
    similarity_threshold: OptionalNumber = Field(
        None,
        ge=-1,
        le=1,
        description="the application's similarity threshold for the source model; the report translates it",
    )

    flow: ClassVar[str] = "multi-model"
    known_by: ClassVar[tuple[str, ...]] = ("source_model", "target_model", "documents", "order_by", "roles")

    def source(self) -> dict[str, Any]:
        return {"store": "live_tables"}

    def missing(self) -> str | None:
        if self.target_model:
            return None
        return "no model is given: set target_model, a name that `vecferry models list` has"

    def resolved(self) -> dict[str, Any]:
        return {
            "embedder": None,
            "queries": self.queries and os.path.abspath(self.queries),
            "documents": self.documents.resolved(),
            "roles": asdict(self.roles.resolved()),
        }
