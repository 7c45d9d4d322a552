"""Arguments that a search function is tried with: likely ones of each type, and what a row of the table has in a column of that name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Call:
    """A function with all that it is given, but for the query's vector."""

    function: Function
    query: int | None
    """The argument that is the query, by number."""
    values: tuple[str | None, ...]
    """Of each argument, as SQL; None leaves it to its default."""
    whole: str = "*"
    """What of its rows is selected."""

    def __call__(self, vector: str) -> str:
        """SQL of the call, by the query's vector in pgvector's text, as far as its rows are looked at."""
        return f"{self.in_full(vector)} LIMIT {probe.COMPARED}"

    def in_full(self, vector: str) -> str:
        """The same, of all its rows."""
        inputs = self.function.inputs
        named = all(parameter.name for parameter in inputs)
        given = list[str]()
        for number, (parameter, value) in enumerate(zip(inputs, self.values, strict=True)):
            if number == self.query:
                argument = probe.literal(vector, parameter.type)
            elif value is not None:
                argument = f"{value}::{parameter.type}"
            elif named:
                continue
            else:
                break  # from here on all have defaults
            prefix = "VARIADIC " if parameter.direction == "v" else ""
            prefix += f"{sql.Identifier(parameter.name).as_string()} => " if named else ""
            given.append(prefix + argument)
        name = sql.Identifier(self.function.schema, self.function.name).as_string()
        return f"SELECT {self.whole} FROM {name}({', '.join(given)}) AS found"

    def by_other_thresholds(self) -> Iterator["Call"]:
        """The same with other thresholds, to which more rows come up, or fewer."""
        for number, parameter in enumerate(self.function.inputs):
            for value in THRESHOLDS.get(parameter.kind, []) if number != self.query else []:
                if value != self.values[number]:
                    yield replace(self, values=(*self.values[:number], value, *self.values[number + 1 :]))


def calls(
    function: Function, query: int | None, sample: Mapping[str, Any], dropped: str | None = None
) -> Iterator[Call]:
    """Calls with several arguments, likely ones first. ``sample`` is a row of the table, of whose columns one is about to be
    ``dropped``."""
    whole = f"to_jsonb(found) - {sql.Literal(dropped).as_string()}" if dropped and function.row_of else "*"
    choices = [
        [None] if number == query else _candidates(parameter, sample)
        for number, parameter in enumerate(function.inputs)
    ]
    for chosen in islice(product(*choices), TRIES):
        yield Call(function, query, chosen, whole)


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
