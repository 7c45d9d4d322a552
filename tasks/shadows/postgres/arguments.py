"""Arguments that a search function is tried with: likely ones of each type, and what a row of the table has in a column of that name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

from psycopg import sql

from tasks.shadows.postgres import probe
from tasks.stores.postgres.catalogue import Function, Parameter

TRIES = 40
"""How many combinations of arguments are tried until one finds something."""
THRESHOLDS = {kind: ["0.9", "0.1", "0.5", "-1", "2", "0"] for kind in ("float4", "float8", "numeric")}
"""Of similarities and of distances: first those that few rows come up to, then those that all do."""
COUNTS = {kind: ["10", "1", "0"] for kind in ("int2", "int4", "int8")}
"""Of rows, of a page, of rows that are left out."""
USUAL: dict[str, list[str]] = {
    **THRESHOLDS,
    **COUNTS,
    "bool": ["true", "false"],
    "json": ["'{}'"],
    "jsonb": ["'{}'"],
}


def calls(
    function: Function, query: int | None, sample: Mapping[str, Any], dropped: str | None = None
) -> Iterator[Callable[[str], str]]:
    """Calls with several arguments, likely ones first, each as SQL by the query's vector. ``sample`` is a row of the table, of
    whose columns one is about to be ``dropped``."""
    whole = f"to_jsonb(found) - {sql.Literal(dropped).as_string()}" if dropped and function.row_of else "*"
    named = all(p.name for p in function.inputs)
    choices = [
        [""] if number == query else _candidates(parameter, sample) for number, parameter in enumerate(function.inputs)
    ]
    for chosen in islice(product(*choices), TRIES):
        given = list[tuple[str, str | None]]()
        for number, (parameter, value) in enumerate(zip(function.inputs, chosen, strict=True)):
            if value is None and not named:
                break  # from here on all have defaults
            if value is None:
                continue
            prefix = "VARIADIC " if parameter.direction == "v" else ""
            prefix += f"{sql.Identifier(parameter.name).as_string()} => " if named else ""
            given.append((prefix, None if number == query else f"{value}::{parameter.type}"))

        def call(vector: str, given: Sequence[tuple[str, str | None]] = tuple(given)) -> str:
            arguments = ", ".join(f"{prefix}{vector if value is None else value}" for prefix, value in given)
            name = sql.Identifier(function.schema, function.name).as_string()
            return f"SELECT {whole} FROM {name}({arguments}) AS found LIMIT {probe.COMPARED}"

        yield call


def _candidates(parameter: Parameter, sample: Mapping[str, Any]) -> list[str | None]:
    """Values of an argument, as SQL; None leaves it and what follows to their defaults."""
    first: list[str | None] = [None] if parameter.default is not None else []
    named, usual = _of_column(parameter.name, sample), USUAL.get(parameter.kind, ["NULL"])
    return [*named, *first, *(usual if parameter.kind in THRESHOLDS or not first else [])]


def _of_column(name: str, sample: Mapping[str, Any]) -> list[str | None]:
    """The sample's value of the column that an argument is called after: of_user_id, p_user_id, match_user_id."""
    for column, value in sample.items():
        if (
            value is not None
            and isinstance(value, str | int | bool)
            and (name == column or name.endswith(f"_{column}"))
        ):
            return [sql.Literal(str(value)).as_string()]
    return []
