"""Functions as PostgreSQL's catalogue has them, and how they are written again: under another name, or with other bodies."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from sql import statement
from tasks.base import stored
from tasks.base.errors import UsageError
from tasks.base.words import counted
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.function_names import bare, shown, split

MADE = "Made by vecferry"
"""How the comments on functions of ours begin, and the bodies of those of the user's that we have given another."""
_TAG = "$vecferry$"
_DIRECTIONS = {"i": "", "o": "OUT ", "b": "INOUT ", "v": "VARIADIC "}
_FUNCTIONS = """
SELECT p.oid::int8, coalesce(p.proargnames, '{}') AS names, coalesce(p.proargmodes::text[], '{}') AS modes, a.types, a.kinds,
  ARRAY(SELECT pg_get_function_arg_default(p.oid, n) FROM generate_series(1, cardinality(a.types)) n) AS defaults,
  pg_get_function_arguments(p.oid) AS arguments, p.proretset AS returns_set, nullif(r.typrelid, 0)::int8 AS row_of,
  l.lanname AS language, p.prosrc AS source, pg_get_function_sqlbody(p.oid) AS parsed, pg_get_functiondef(p.oid) AS definition,
  p.oid::regprocedure::text AS signature, p.proisstrict AS strict, p.prosecdef AS definer, coalesce(p.proconfig, '{}') AS config,
  pg_get_userbyid(p.proowner) AS owner, coalesce(g.roles, '{}') AS roles, coalesce(g.grantable, '{}') AS grantable,
  coalesce(starts_with(obj_description(p.oid, 'pg_proc'), %(made)s), false) AS made
FROM pg_proc p
JOIN pg_language l ON l.oid = p.prolang
JOIN pg_type r ON r.oid = p.prorettype
CROSS JOIN LATERAL (SELECT coalesce(array_agg(format_type(t.oid, NULL) ORDER BY n), '{}') AS types,
  coalesce(array_agg(t.typname::text ORDER BY n), '{}') AS kinds
  FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS u(type, n) JOIN pg_type t ON t.oid = u.type) AS a
CROSS JOIN LATERAL (SELECT array_agg(CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END) AS roles,
  array_agg(is_grantable) AS grantable FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner)))) AS g
WHERE p.pronamespace = to_regnamespace(quote_ident(%(schema)s)) AND p.proname = %(name)s AND p.prokind = 'f'
ORDER BY p.oid
"""


@dataclass(frozen=True)
class Parameter:
    """An argument that callers give, or an output."""

    direction: str
    """As pg_proc.proargmodes has it: i, o, b, v, t."""
    name: str
    """Empty where it has none."""
    type: str
    kind: str
    """Its type by itself, without schema and dimensions: vector."""
    default: str | None

    @property
    def given(self) -> bool:
        """Whether callers give it."""
        return self.direction in "ibv"


@dataclass(frozen=True)
class Grant:
    """A role that may execute a function; None stands for everybody."""

    role: str | None
    grantable: bool


@dataclass(frozen=True)
class Function:
    """A function as the catalogue has it."""

    oid: int
    schema: str
    name: str
    parameters: tuple[Parameter, ...]
    arguments: str
    """With names, types and defaults, as CREATE FUNCTION takes them."""
    returns_set: bool
    row_of: int | None
    """The table or composite type whose rows it returns."""
    language: str
    body: str
    parsed: bool
    """Whether the catalogue holds the body parsed (BEGIN ATOMIC), not as text."""
    definition: str
    """CREATE OR REPLACE FUNCTION, whole."""
    signature: str
    """What names it in ALTER and DROP."""
    strict: bool
    definer: bool
    config: tuple[str, ...]
    owner: str
    grants: tuple[Grant, ...]
    made: bool
    """Whether vecferry made it."""

    @property
    def inputs(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if p.given)

    @property
    def outputs(self) -> tuple[tuple[str, str], ...]:
        """Name and type of each column of its result, or output argument."""
        return tuple((p.name, p.type) for p in self.parameters if p.direction in "obt")

    @property
    def returns_nothing(self) -> bool:
        return f"({self.arguments})\n RETURNS void\n" in self.definition

    @property
    def unnamed(self) -> str | None:
        """Its result, where that is rows whose columns nobody but the caller names."""
        kinds = [] if self.outputs else ["SETOF record", "record"]
        return next((kind for kind in kinds if f"({self.arguments})\n RETURNS {kind}\n" in self.definition), None)

    @property
    def head(self) -> str:
        """The definition as far as the body."""
        return self.definition[: self.definition.index("\nBEGIN ATOMIC\n" if self.parsed else "\nAS $")]

    @property
    def options(self) -> str:
        """What stands between the arguments and the body."""
        return self.head[self.head.index(f"({self.arguments})\n RETURNS") + len(self.arguments) + 2 :]

    @property
    def inlined(self) -> bool:
        """Whether PostgreSQL puts its text into the queries of its callers, whose LIMIT then ends its search."""
        plain = self.returns_set and not (self.strict or self.definer or self.config)
        return plain and bool(re.search(r"\n LANGUAGE sql\n (IMMUTABLE|STABLE)\b", self.options))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Function":
        parameters = tuple(stored.read(Parameter, p) for p in data["parameters"])
        grants = tuple(stored.read(Grant, g) for g in data["grants"])
        return stored.read(cls, {**data, "parameters": parameters, "grants": grants, "config": tuple(data["config"])})


def functions(connection: Connection, schema: str, name: str) -> list[Function]:
    """All functions of that name, whatever they take; ``schema`` is that of a name without one."""
    schema, name = split(schema, name)
    with connection.cursor(row_factory=dict_row) as cursor:
        # Prepared: a switch asks a hundred times, and planning it takes several times as long as the answer.
        given = {"made": MADE, "schema": schema, "name": name}
        rows = cursor.execute(_FUNCTIONS, given, prepare=True).fetchall()
    return [_function(schema, name, row) for row in rows]


def _function(schema: str, name: str, row: dict[str, Any]) -> Function:
    types, parsed = row["types"], row["parsed"] is not None
    names = [*row["names"], *[""] * (len(types) - len(row["names"]))]
    modes = row["modes"] or ["i"] * len(types)
    whole = zip(modes, names, types, row["kinds"], row["defaults"], strict=True)
    as_it_is = {f.name for f in fields(Function)} & row.keys() - {"parsed", "config"}
    return Function(
        schema=schema,
        name=name,
        parameters=tuple(Parameter(*parameter) for parameter in whole),
        body=row["parsed"].removeprefix("BEGIN ATOMIC").removesuffix("END") if parsed else row["source"],
        parsed=parsed,
        config=tuple(row["config"]),
        grants=tuple(Grant(*grant) for grant in zip(row["roles"], row["grantable"], strict=True)),
        **{key: row[key] for key in as_it_is},
    )


def find(connection: Connection, schema: str, name: str, switched: bool = False) -> Function | None:
    """The function of that name. Raises UsageError when there are several; of a name that was ``switched``, the one that was is
    told from others by its body or its arguments."""
    every = functions(connection, schema, name)
    if switched and len(every) > 1:
        every = [f for f in every if is_generated(f) or f.made] or [f for f in every if _is_usual(f)] or every
    if len(every) > 1:
        raise UsageError(
            f"{shown(schema, name)} is the name of {counted(len(every), 'function')}: drop what is not used, or name another "
            f"with `function`"
        )
    return every[0] if every else None


def is_generated(function: Function) -> bool:
    """Whether its body is one that we gave it."""
    return MADE in function.body or is_of_0_1(function)


def is_of_0_1(function: Function) -> bool:
    """Whether 0.1 gave it its body, which is known by what it calls."""
    return bool(function.inputs) and f'"{function.name}_v2"("{function.inputs[0].name}"' in function.body


def _is_usual(function: Function) -> bool:
    """Whether it takes query, threshold and count, as most are written."""
    return [p.kind for p in function.inputs] == ["vector", "float8", "int4"]


def defined(
    function: Function,
    name: str | None = None,
    body: str | None = None,
    language: str | None = None,
    types: Mapping[int, str] | None = None,
) -> sql.Composed:
    """What makes the function once more with all its options, and with what is given in its stead. ``types`` are those of
    arguments that callers give, by number."""
    options = function.options
    if language:
        named = re.escape(sql.Identifier(function.language).as_string()[1:-1])
        options, count = re.subn(rf"(?<=\n LANGUAGE ){named}(?=\n|$)", language, options, count=1)
        assert count, f"{function.name} has no language"
    arguments = _arguments(function, types) if types else function.arguments
    says = body or function.body
    body = f"BEGIN ATOMIC\n{says}\nEND" if function.parsed and language is None else f"AS {dollars(says)}"
    definition = sql.SQL(f"({arguments}){options}\n{body}")
    return statement(
        "cutover_function_copy", schema=function.schema, function=bare(name or function.name), definition=definition
    )


def define(
    connection: Connection,
    function: Function,
    name: str | None = None,
    body: str | None = None,
    language: str | None = None,
    types: Mapping[int, str] | None = None,
) -> Function:
    """Makes what ``defined`` says: in the function's place, or under another name with the same owner and grants."""
    connection.execute(defined(function, name, body, language, types))
    if name is None or bare(name) == function.name:
        return function
    made = max(functions(connection, function.schema, name), key=lambda f: f.oid)
    give(connection, made, function.owner, function.grants)
    return replace(made, owner=function.owner, grants=function.grants)


def give(connection: Connection, function: Function, owner: str, grants: tuple[Grant, ...]) -> None:
    """Gives the function, as it is now, this owner, and those who may execute it these rights and nobody else any, whatever default
    privileges say."""
    name = sql.SQL(function.signature)
    connection.execute(statement("cutover_function_owner", function=name, role=owner))
    for grant in {*function.grants, Grant(None, False)}:
        if grant.role not in (function.owner, owner):  # the grants of the one are the other's now
            connection.execute(statement("grant_function_no_more", function=name, role=_role(grant.role)))
    for grant in grants:
        further = sql.SQL(" WITH GRANT OPTION" if grant.grantable and grant.role != owner else "")
        connection.execute(statement("grant_function", function=name, role=_role(grant.role) + further))


def executors(connection: Connection, function: Function) -> frozenset[str]:
    """The roles that may execute the function, those aside that may do anything."""
    rows = connection.execute(
        "SELECT rolname FROM pg_roles WHERE NOT rolsuper AND has_function_privilege(oid, %s::oid, 'EXECUTE')",
        (function.oid,),
    ).fetchall()
    return frozenset(name for (name,) in rows)


def drop(connection: Connection, signature: str) -> None:
    """Takes a function away."""
    connection.execute(statement("contract_function", function=sql.SQL(signature)))


def note(connection: Connection, function: Function, comment: str) -> None:
    """Says what a function of ours is."""
    name = sql.SQL(function.signature)
    connection.execute(statement("cutover_function_comment", function=name, comment=f"{MADE}: {comment}"))


def dollars(body: str) -> str:
    """The body as a literal."""
    assert _TAG not in body
    return f"{_TAG}{body}{_TAG}"


def _arguments(function: Function, types: Mapping[int, str]) -> str:
    written, given = [], 0
    for parameter in function.parameters:
        if parameter.direction == "t":
            continue
        kind = types.get(given, parameter.type) if parameter.given else parameter.type
        given += parameter.given
        name = f"{sql.Identifier(parameter.name).as_string()} " if parameter.name else ""
        default = f" DEFAULT {parameter.default}" if parameter.default else ""
        written.append(f"{_DIRECTIONS[parameter.direction]}{name}{kind}{default}")
    return ", ".join(written)


def _role(name: str | None) -> sql.Composed:
    return sql.Composed([sql.Identifier(name) if name is not None else sql.SQL("PUBLIC")])
