"""The form of siglip-to-clip."""

import os
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.forms.clip_to_megadescriptor import Images
from flows.forms.decimals import OptionalNumber
from flows.forms.shared import LEDGER, Migration
from tasks.base.settings import DEFAULT_DATABASE

URL, API_KEY = "QDRANT_URL", "QDRANT_API_KEY"
"""Names that are asked where no others are given."""


class Qdrant(BaseModel):
    """Where the collection is: a server, or a directory of qdrant-client's local mode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = Field(
        None,
        description="http://HOST:6333, or the name of the environment variable or Secret block that holds it (default: QDRANT_URL)",
    )
    path: str | None = Field(None, description="a directory of qdrant-client's local mode, instead of a server")
    api_key: str = Field(API_KEY, description="name of the environment variable or Secret block that holds the API key")

    @model_validator(mode="after")
    def one_place(self) -> "Qdrant":
        if self.path and self.url:
            raise ValueError("give qdrant.url or qdrant.path, not both")
        return self


class Lookup(BaseModel):
    """A row of an SQL table that a point's payload names, such as one of the guide's ``images``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field("chunk_id", description="payload key that names the row")
    table: str = Field("images", description='the table as SQL names it: images, schema.images or "Quoted Name"')
    match: str | None = Field(
        None, description="column that holds what the payload names (default: as the payload key)"
    )
    column: str = Field("image_path", description="column that holds the reference of the image, or the text")
    database: str = Field(
        DEFAULT_DATABASE,
        description="name of the environment variable or Secret block that holds the table's database URL",
    )


class SiglipToClip(Migration):
    """The form of siglip-to-clip."""

    database: str = LEDGER
    qdrant: Qdrant = Field(Qdrant(), description="where the collection is")
    collection: str = Field("image_chunks", description="the collection, or an alias of it")
    strategy: Literal["named_vector", "alias", "replace"] | None = Field(
        None,
        description="where the new vectors are stored: a second named vector of the same points, a new collection behind an alias, or a "
        "new one that takes the old one's name (default: named_vector where the vectors have names and the server can add "
        "one, else alias)",
    )
    old_vector: str | None = Field(
        None, description="name of the old vectors, where the collection has several (default: the only ones)"
    )
    vector_name: str | None = Field(
        None,
        description="name of the new vectors (default: with named_vector that of the model, else that of the old vectors)",
    )
    new_collection: str | None = Field(
        None,
        description="name of the new collection (default: the old one's and the new vector size, image_chunks_768)",
    )
    alias: str | None = Field(
        None,
        description="alias that points to the new collection after the switch (default: NEW_current, or `collection` where that is "
        "an alias)",
    )
    content: Literal["image", "text"] = Field("image", description="what the model is given of a point")
    image: str | Lookup = Field(
        "image_path", description="the reference of a point's image: the payload key, or an SQL table that has it"
    )
    images: Images = Field(Images(), description="where the images are")
    text: str | Lookup = Field("text", description="a point's text: the payload key, or an SQL table that has it")
    embedder: str = Field(
        "sentence-transformers/clip-ViT-L-14", description="model of the new vectors: provider/model[?option=value]"
    )
    old_embedder: str | None = Field(
        None, description="model of the old vectors; with it they are checked, and `similarity_threshold` is translated"
    )
    queries: str | None = Field(None, description="file of text queries with the images that answer them, JSON lines")
    similarity_threshold: OptionalNumber = Field(
        None,
        ge=-1,
        le=1,
        description="the application's similarity threshold for the old vectors; the report translates it by `queries`",
    )

    flow: ClassVar[str] = "siglip-to-clip"
    stand_for: ClassVar[dict[str, str]] = {"qdrant": "source"}
    known_by: ClassVar[tuple[str, ...]] = (
        "source",
        "collection",
        "strategy",
        "vector_name",
        "new_collection",
        "embedder",
    )

    def source(self) -> dict[str, Any]:
        qdrant, asked = self.qdrant, self.image if self.content == "image" else self.text
        where = {"path": os.path.abspath(qdrant.path)} if qdrant.path else {"url": qdrant.url or URL}
        document: dict[str, Any] = {"document": asked}
        if isinstance(asked, Lookup):
            document = {"document": asked.key, "lookup": {**asked.model_dump(), "match": asked.match or asked.key}}
        return {"store": "qdrant", **where, "api_key": qdrant.api_key, **document}

    def resolved(self) -> dict[str, Any]:
        queries = os.path.abspath(self.queries) if self.queries else None
        return {"images": self.images.resolved(), "queries": queries}

    def missing(self) -> str | None:
        if self.content == "text" and self.embedder == type(self).model_fields["embedder"].default:
            return "no model of texts is given: set embedder, openai/text-embedding-3-small for example"
        return None
