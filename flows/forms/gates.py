"""The gates as forms: with their defaults, of a new run; each left out, of a run that has its own."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from flows.forms.decimals import Number, OptionalNumber
from tasks.checks import gates

DEFAULTS: dict[str, Any] = {
    "min_recall": 0.9,
    "recall_k": 10,
    "min_row_cosine": 0.999,
    "sample": 300,
    "max_quarantined": 0,
    "max_deleted": 0.5,
}
TYPES: dict[Any, Any] = {float: Number, int: int}
OPTIONAL: dict[Any, Any] = {float: OptionalNumber, int: int | None}


def _form(types: dict[Any, Any], defaults: dict[str, Any]) -> Any:
    """A model of the gates' fields, with their bounds and their help."""
    fields: dict[str, Any] = {
        name: (
            Annotated[(types[field.annotation], *field.metadata)],
            Field(defaults[name], description=field.description),
        )
        for name, field in gates.Gates.model_fields.items()
    }
    return create_model("Gates", __config__=ConfigDict(extra="forbid", frozen=True), **fields)


class Gates(_form(TYPES, DEFAULTS)):  # type: ignore[misc]
    """What must hold before the switch."""


class GatesOfRun(_form(OPTIONAL, dict.fromkeys(DEFAULTS))):  # type: ignore[misc]
    """The same, for what is done with a run that has its own."""


def stated(form: BaseModel) -> dict[str, Any]:
    """The gates that somebody stated. Prefect's pages send every field of a form: of a whole set only those count that
    are not the defaults."""
    set_, fields = form.model_dump(exclude_unset=True), type(form).model_fields
    whole = set_.keys() == fields.keys()
    return {n: v for n, v in set_.items() if v is not None and not (whole and v == fields[n].default)}
