"""The way back from a switch between models that tables serve."""

from tasks.base.errors import UsageError
from tasks.runs import models, registry
from tasks.runs.registry import RegisteredModel
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.model_tables import ModelTables


def go_back(connection: Connection, tables: ModelTables, model: RegisteredModel) -> RegisteredModel:
    """Makes the model that this one took over from the default again, in the caller's transaction; returns it. Raises UsageError
    where another has taken over since, or nothing is left to go back to."""
    models.hold(connection)
    known = registry.listed(connection, tables)
    now = next((m for m in known if m.active), None)
    if now is None or now.number != model.number:
        searched = f"{now.name} is" if now else "none is"
        raise UsageError(
            f"{model.name} is not the default of {tables.chunks}, {searched}: `vecferry models activate NAME` makes another one that"
        )
    row = connection.execute("SELECT took_over_from FROM vecferry.model WHERE model = %s", (model.number,)).fetchone()
    before = next((m for m in known if row and m.number == row[0]), None)
    if before is None:
        raise UsageError(
            f"the model before {model.name} is gone, so there is nothing to go back to: `vecferry models activate NAME` makes another "
            "one the default"
        )
    connection.execute(
        "UPDATE vecferry.model SET state = 'built', took_over_from = NULL, switched_at = now() WHERE model = %s",
        (model.number,),
    )
    connection.execute(
        "UPDATE vecferry.model SET state = 'active', ended_at = NULL, switched_at = now() WHERE model = %s",
        (before.number,),
    )
    return before


def settle(connection: Connection, model: RegisteredModel) -> None:
    """Notes that there is no way back from it any more."""
    connection.execute("UPDATE vecferry.model SET took_over_from = NULL WHERE model = %s", (model.number,))
