"""The forms of the verbs that prepare tables for several models, and choose between these."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.forms.decimals import Number, OptionalNumber
from flows.forms.shared import SHARE, Base
from tasks.stores.postgres import model_tables


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str | None = Field(None, description="the table as SQL names it")


class DocumentsRole(_Part):
    """The table of documents."""

    key: str | None = Field(None, description="column that identifies a document (default: the primary key)")
    title: str | None = Field(None, description="column of the title (default: title or name)")
    text: str | None = Field(None, description="column of the whole text (default: content or text)")


class ChunksRole(_Part):
    """The table of chunks."""

    key: str | None = Field(None, description="column that identifies a chunk (default: the primary key)")
    document: str | None = Field(None, description="column of its document (default: the foreign key)")
    text: str | None = Field(None, description="column of the text that is embedded (default: content or text)")
    position: str | None = Field(None, description="column of its number in the document (default: chunk_index)")
    vector: str | None = Field(
        None, description="column of the vectors that are searched now, where they are in this table"
    )


class EmbeddingsRole(_Part):
    """The table of vectors."""

    chunk: str | None = Field(None, description="column of the chunk (default: the foreign key)")
    model: str | None = Field(None, description="column of the model's id (default: model_id)")
    vector: str | None = Field(None, description="column of the vectors that are searched now")


class Roles(BaseModel):
    """Which tables and columns play which part; what is not said is read from foreign keys and usual names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    documents: str | DocumentsRole | None = Field(
        None, description="the table of documents (default: where the chunks' foreign key leads, else documents)"
    )
    chunks: str | ChunksRole | None = Field(
        None, description="the table of chunks (default: where the vectors' foreign key leads, else document_chunks)"
    )
    embeddings: str | EmbeddingsRole | None = Field(
        None, description="the table of vectors (default: chunk_embeddings)"
    )

    def resolved(self) -> model_tables.Roles:
        """As the database is asked."""
        return model_tables.Roles(_given(self.documents), _given(self.chunks), _given(self.embeddings))


class OfTables(Base):
    """What every verb about models takes."""

    roles: Roles = Field(Roles(), description="the tables and columns that play these parts")


class Ingest(OfTables):
    """What `vecferry ingest` takes."""

    budget_usd: OptionalNumber = Field(
        None, ge=0, description="dollars that this command may spend on vectors; it stops before it would spend more"
    )


class Serve(OfTables):
    """What `vecferry serve` takes."""

    budget_usd: OptionalNumber = Field(
        None, ge=0, description="dollars a day, of UTC, that services over this database may spend on vectors"
    )


class ModelsInit(OfTables):
    """The form of models-init."""

    source_model: str | None = Field(
        None, description="model of the vectors that are there: provider/model, or unknown"
    )
    create: bool = Field(False, description="make new tables, even though other tables of the database have vectors")
    adopt: bool = Field(False, description="take over a table embedding_models, whose name goes to the registry's view")
    replace_unique: bool = Field(
        False, description="replace a key that allows one row per chunk by one over chunk and model"
    )
    rename: bool | None = Field(
        None, description="true: the column that was there is called embedding_N; false: what it was called before"
    )
    rollback: bool = Field(False, description="put the tables back as they were before, where no vectors would be lost")
    force: bool = Field(
        False, description="rename it even though functions of the application name it, or a run is at work"
    )


class ModelsSetup(OfTables):
    """The form of models-setup."""

    models: list[str] = Field([], description="models to serve: provider/model (default: those that are registered)")
    similarity_threshold: OptionalNumber = Field(
        None, ge=-1, le=1, description="similarity below which a search by these models gives no row"
    )
    partial: bool | None = Field(
        None,
        description="an index of each model's rows alone, beside that of the whole column (default: of models that share a column "
        "with an earlier one)",
    )


class ModelsActivate(OfTables):
    """The form of models-activate."""

    model: str = Field(description="the model that new searches and new documents use")
    force: bool = Field(False, description="even if it does not cover all chunks")


class ModelsRetire(OfTables):
    """The form of models-retire."""

    model: str = Field(description="the model to stop searching by; a second time, after the window, drops its vectors")
    rollback_days: Number = Field(7, ge=0, le=36_500, description="days after which a second retire drops its vectors")
    force: bool = Field(False, description="even if a run moves documents to or from it, or could be rolled back to it")
    database_share: Number = SHARE


def _given(part: str | BaseModel | None) -> dict[str, Any]:
    if part is None:
        return {}
    return {"table": part} if isinstance(part, str) else part.model_dump(exclude_none=True)
