"""What a live table's functions are called in plans and in the registry of models: by the bare name where they lie in the table's
schema, and otherwise as SQL names them, ``"public"."match_docs"``."""

import re

from psycopg import sql

from tasks.stores.postgres.syntax import unquoted

_QUALIFIED = re.compile(r'("(?:[^"]|"")+")\.("(?:[^"]|"")+")')


def of_table(schema: str, where: str, name: str) -> str:
    """What a function in the schema ``where`` is called for a table in ``schema``."""
    return name if where == schema else sql.Identifier(where, name).as_string()


def split(schema: str, function: str) -> tuple[str, str]:
    """Schema and name of a function of a table in ``schema``."""
    qualified = _QUALIFIED.fullmatch(function)
    return (unquoted(qualified[1]), unquoted(qualified[2])) if qualified else (schema, function)


def bare(function: str) -> str:
    """Its name alone."""
    return split("", function)[1]


def beside(function: str, name: str) -> str:
    """What a function called ``name`` is called that lies in the schema of another one."""
    where = split("", function)[0]
    return of_table("", where, name)


def told(function: str) -> str:
    """As people are told of it who know the table: match_docs, public.match_docs."""
    return ".".join(filter(None, split("", function)))


def shown(schema: str, function: str) -> str:
    """With its schema: public.match_docs."""
    return ".".join(split(schema, function))
