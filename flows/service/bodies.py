"""What requests carry: only what PostgreSQL and a model can take."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

LARGEST = 3.4028235e38
"""Of a float32."""
LETTERS = 1_000_000
"""Of a document at most; `vecferry ingest` takes larger ones."""
DEPTH = 32
"""Of a filter, or of metadata."""


def storable(text: str) -> str:
    """The text. Raises ValueError for what PostgreSQL cannot store."""
    if "\0" in text:
        raise ValueError("must not hold the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not hold half a surrogate pair") from None
    return text


def storable_object(value: dict[str, Any]) -> dict[str, Any]:
    """The object. Raises ValueError where something in it is not storable, or it is too deep."""
    level: list[Any] = [value]
    for _ in range(DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += [*one, *one.values()]
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str):
                storable(one)
            elif isinstance(one, float) and not abs(one) < float("inf"):
                raise ValueError("must not hold a number that is not finite")
            elif isinstance(one, int) and abs(one) >= 1 << 63:
                raise ValueError("must not hold a whole number of more than 63 bits")
        level = below
    if level:
        raise ValueError(f"must not be more than {DEPTH} levels deep")
    return value


STORABLE = AfterValidator(storable)
Name = Annotated[
    str, Field(min_length=1, max_length=500, description="a model, in full or by a part that is unique"), STORABLE
]
DocumentKey = Annotated[str, Field(min_length=1, max_length=200, description="the key of a document"), STORABLE]
Vector = Annotated[
    list[Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]], Field(min_length=1, max_length=16_000)
]
Object = Annotated[dict[str, Any], AfterValidator(storable_object)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Search(Body):
    """What is looked for: a text, or its vector."""

    query: Annotated[str, Field(min_length=1, max_length=100_000), STORABLE] | None = None
    vector: Vector | None = Field(None, description="a vector of the model, in place of a query")
    model: Name | None = Field(None, description="the model to search by; by default the active one")
    models: list[Name] | None = Field(
        None, min_length=1, max_length=16, description="several, fused by reciprocal rank"
    )
    vectors: dict[str, Vector] | None = Field(
        None, min_length=1, max_length=16, description="of several models, by their names, in place of a query"
    )
    aggregation: Literal["union", "intersection"] = "union"
    top_k: int = Field(5, ge=1, le=1000)
    filter: Object | None = Field(None, description="what the metadata of a chunk, or of its document, must contain")
    min_similarity: float | None = Field(
        None, ge=-LARGEST, le=LARGEST, allow_inf_nan=False, description="in place of each model's own threshold"
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> "Search":
        _only_one(("query", self.query), ("vector", self.vector), ("vectors", self.vectors), needed=True)
        _only_one(("model", self.model), ("models", self.models), ("vectors", self.vectors))
        _only_one(("vector", self.vector), ("models", self.models))
        return self


class NewDocument(Body):
    """A document to be written, with its vectors."""

    title: Annotated[str, Field(max_length=10_000), STORABLE] | None = None
    content: Annotated[str, Field(min_length=1, max_length=LETTERS), STORABLE]
    model: Name | None = Field(None, description="the model of its vectors; by default the active one")
    metadata: Object | None = None


class Migration(Body):
    """Documents that are to have vectors of another model."""

    target_model: Name
    source_model: Name | None = Field(None, description="the model whose vectors they have; by default the active one")
    documents: list[DocumentKey] | None = Field(
        None, min_length=1, max_length=10_000, description="keys of documents; by default all"
    )


def _only_one(*given: tuple[str, object], needed: bool = False) -> None:
    named = [name for name, value in given if value is not None]
    if len(named) > 1:
        raise ValueError(f"give either {_either(named)}")
    if needed and not named:
        raise ValueError(f"give one of {_either([name for name, _ in given])}")


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
