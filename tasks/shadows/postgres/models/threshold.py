"""The threshold of similarity that a model gets with the switch: what verification has translated that of the model before into.

A run gives a model that has none the one that it has translated, and takes back no other: what a person has set stays.
"""

from tasks.runs import checkpoints, registry
from tasks.runs.details import Translated
from tasks.runs.plan import Target
from tasks.runs.registry import RegisteredModel
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import SCHEMA, ModelColumn


def give(connection: Connection, run_id: str, target: Target[ModelColumn], model: RegisteredModel) -> None:
    """In the caller's transaction, before the functions that search by the model are made."""
    translated = translation(connection, run_id, target)
    if translated is None or model.similarity_threshold is not None:
        return
    registry.set_threshold(connection, model, translated.new)
    connection.execute(
        "UPDATE vecferry.relation SET source = source || jsonb_build_object('threshold', %s::float8) "
        "WHERE (table_schema, table_name) = (%s, %s)",
        (translated.new, SCHEMA, target.place.shadow),
    )


def take_off(connection: Connection, target: Target[ModelColumn], model: RegisteredModel) -> bool:
    """Takes away what the run has given the model, in the caller's transaction; whether it did."""
    if given(connection, target) is None:
        return False
    registry.set_threshold(connection, model, None)
    stays(connection, model)
    return True


def given(connection: Connection, target: Target[ModelColumn]) -> float | None:
    """The threshold that the run has given its model, and that nobody has set since."""
    row = connection.execute(
        "SELECT (source ->> 'threshold')::float8 FROM vecferry.relation WHERE (table_schema, table_name) = (%s, %s)",
        (SCHEMA, target.place.shadow),
    ).fetchone()
    return row[0] if row else None


def stays(connection: Connection, model: RegisteredModel) -> None:
    """Notes that no run takes back what the model's threshold is."""
    connection.execute(
        "UPDATE vecferry.relation SET source = source - 'threshold' WHERE (source ->> 'model')::bigint = %s AND source ? 'threshold'",
        (model.number,),
    )


def translation(connection: Connection, run_id: str, target: Target[ModelColumn]) -> Translated | None:
    """What the last verification of the run has come to."""
    return checkpoints.verified(connection, run_id, target.number).threshold
