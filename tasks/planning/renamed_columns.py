"""Plans live tables whose new column takes the old one's name at the switch: what the layout ``column`` stands for here. In the layout
``side_table`` no name changes.

Beside what tables reads, the request's own parameters are ``write_function``, the name of the function by which the application
writes vectors, "" for none and None for the usual one, and ``allow_dependents``.
"""

import re
from dataclasses import replace

from tasks.base.errors import UsageError
from tasks.embedders.naming import parse_model
from tasks.planning.live import tables
from tasks.planning.live.tables import estimate, examine
from tasks.planning.planned import Draft
from tasks.runs import models
from tasks.runs.plan import Request
from tasks.stores.postgres.catalogue import find
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import LivePlace, RenamedColumn, Renaming

__all__ = ["draft", "estimate", "examine"]


def draft(connection: Connection, request: Request, run_id: str) -> Draft:
    """The plan of a new run, its rows not counted yet. Raises UsageError when a table, a column or a function is not there."""
    return tables.draft(connection, request, run_id, refined)


def refined(connection: Connection, request: Request, place: LivePlace) -> LivePlace:
    """The place with what it takes to be switched by name."""
    if not place.in_table:
        return replace(place, write_function=_write_function(connection, request, place))
    live = place.live
    if live.beside:
        raise UsageError(
            f"{place.schema}.{place.table}.{live.vectors} lies beside the table, and has no name there to be taken: choose "
            "layout=side_table"
        )
    _refuse_unsearched(connection, place)
    kept = kept_name(live.vectors, request.old_embedder, live.layout.dimensions, request.flow.partition("-to-")[0])
    return RenamedColumn(
        **{
            **vars(place),
            "write_function": _write_function(connection, request, place),
            "renaming": Renaming(column=live.vectors, kept=kept, working=place.new_column),
            "allow_dependents": bool(request.own.get("allow_dependents")),
        }
    )


def kept_name(column: str, model: str | None, dimensions: int | None, word: str = "old") -> str:
    """What the old column is called after the switch: its name, the first word of its model's and its dimensions, embedding_clip_512;
    ``word`` where the model is not named."""
    if model:
        named = parse_model(model)
        word = next((w for w in re.findall(r"[a-z]+", named.model.rpartition("/")[2].lower())), named.provider)
    parts = [column, word.replace("-", "_"), *([str(dimensions)] if dimensions else [])]
    return "_".join(parts)


def _refuse_unsearched(connection: Connection, place: LivePlace) -> None:
    """Raises UsageError for other vectors than those that are searched: their name is no longer the one that people know."""
    chain = models.ways_back(connection, place.schema, place.table)
    searched = next((m for m in chain if m.content == place.live.text), None)
    if searched and searched.column_name != place.live.vectors:
        raise UsageError(
            f"{place.schema}.{place.table} is searched by {searched.column_name}, and not by {place.live.vectors}: name that as old_column"
        )


def _write_function(connection: Connection, request: Request, place: LivePlace) -> str | None:
    """The function that writes vectors; None where there is none by the usual name."""
    named = request.own.get("write_function")
    if named == "":
        return None
    name = named or f"update_{place.table.removesuffix('s')}_embedding"
    if find(connection, place.schema, name, switched=True):
        return str(name)
    if named:
        raise UsageError(
            f"there is no function {place.schema}.{name}: name the one that writes vectors with `write_function`"
        )
    return None
