"""The form of clip-to-megadescriptor."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.forms.decimals import OptionalNumber
from flows.forms.shared import Migration


class Images(BaseModel):
    """Where the images are that the rows refer to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: str | None = Field(
        None,
        description="a directory, an fsspec URL (s3://bucket/photos) or an https prefix that references are read below; "
        "without it a reference is an https URL",
    )
    bucket: str | None = Field(None, description="bucket of Supabase storage below root, the project's URL")
    service_key: str | None = Field(
        None, description="name of the environment variable or Secret block with the key of a private bucket"
    )
    allow_hosts: list[str] = Field([], description="hosts on the local or a private network that may be asked")
    max_bytes: int = Field(1 << 25, ge=1, description="a larger file is quarantined")
    max_pixels: int = Field(89_478_485, ge=1, description="a picture of more pixels is quarantined")

    def resolved(self) -> dict[str, Any]:
        """The same whoever reads it, and from wherever."""
        root = self.root
        return {**self.model_dump(), "root": os.path.abspath(root) if root and "://" not in root else root}


class Crop(BaseModel):
    """The part of its image that a row is about: pixels after EXIF rotation, or fractions where all four are 1 or less."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    x: str = Field(description="column of the left edge")
    y: str = Field(description="column of the top edge")
    width: str = Field(description="column of the width")
    height: str = Field(description="column of the height")


class ClipToMegadescriptor(Migration):
    """The form of clip-to-megadescriptor."""

    table: str = Field("reports", description='the table as SQL names it: reports, schema.reports or "Quoted Name"')
    id: list[str] | str | None = Field(None, description="columns that identify a row (default: the primary key)")
    image: str | None = Field(
        None,
        description="the reference of a row's image, or its bytes: a column, or an SQL expression over columns such as "
        "coalesce(edited_path, original_path) (default: the only column with a usual name)",
    )
    images: Images = Field(Images(), description="where the images are")
    crop: Crop | None = Field(None, description="columns of the part of the image that a row is about")
    version: str | None = Field(None, description="a column that changes when the file of an unchanged reference does")
    old_column: str = Field("embedding", description="column of the old vectors, and of the new ones after the cutover")
    new_column: str = Field("embedding_megadescriptor", description="column of the new vectors until the cutover")
    function: str | None = Field(None, description="search function to switch (default: match_TABLE)")
    function_sql: str | None = Field(None, description="body of that function for the new vectors (default: derived)")
    write_function: str | None = Field(
        "update_report_embedding",
        description="function by which the application writes vectors; it switches too, unless this is null",
    )
    layout: Literal["column", "side_table"] = Field(
        "column",
        description="where the new vectors are stored: in a column of the table, which takes the old one's name at the cutover, or in "
        "a table beside it, where only the functions switch",
    )
    embedder: str = Field(
        "timm/MegaDescriptor-L-384", description="model of the new vectors: provider/model[?option=value]"
    )
    old_embedder: str | None = Field(
        None,
        description="model of the old vectors; with it they are checked, and kept up to date after the switch",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="what the model runs on")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="numbers that the model computes with")
    hourly_price: OptionalNumber = Field(
        None, ge=0, description="dollars that an hour of this machine costs; the plan says what the run will"
    )
    label: str | None = Field(
        None,
        description="column of what an image shows, such as the individual; old and new vectors are compared by it",
    )
    similarity_threshold: OptionalNumber = Field(
        None,
        ge=-1,
        le=1,
        description="the application's similarity threshold for the old vectors; the report translates it",
    )
    probe_settings: dict[str, str] = Field(
        {},
        description="settings that policies and filters read, for trying the search function: {request.jwt.claims: …}",
    )
    allow_dependents: bool = Field(
        False, description="switch even though views and the like name the old column, and will stay on it"
    )

    flow: ClassVar[str] = "clip-to-megadescriptor"
    stand_for: ClassVar[dict[str, str]] = {"device": "embedder", "precision": "embedder"}

    def source(self) -> dict[str, Any]:
        return {"store": "live_tables"}

    def resolved(self) -> dict[str, Any]:
        usual = self.write_function == type(self).model_fields["write_function"].default
        key = [self.id] if isinstance(self.id, str) else self.id
        options = {"device": self.device, "precision": self.precision}
        return {
            "embedder": _with(self.embedder, options, type(self)),
            "id": key,
            "images": self.images.resolved(),
            "write_function": None if usual else self.write_function or "",
        }

    def places(self) -> list[tuple[str, str]]:
        return [(self.table, self.new_column)]


def _with(model: str, options: Mapping[str, str], form: type[BaseModel]) -> str:
    """The model's name with the options that are not left at their default, nor given in the name."""
    for name, value in options.items():
        if value != form.model_fields[name].default and f"{name}=" not in model:
            model += f"{'&' if '?' in model else '?'}{name}={value}"
    return model
