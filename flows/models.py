"""Tables that serve several models: they are prepared, given models, and switched between these."""

from collections.abc import Sequence
from typing import Any

from prefect import State, flow
from prefect.states import Completed

from flows.forms.form import form
from flows.forms.models import ModelsActivate, ModelsInit, ModelsRetire, ModelsSetup, OfTables
from flows.naming import run_name
from flows.served import asked_of, wanted_of
from tasks.runs.database import Connection, connect, database_url, refusable
from tasks.shadows.postgres.models import init, rename, retire, rollback, setup, switch
from tasks.stores.postgres import model_tables, pace

Result = dict[str, Any]


@flow(name="models-init", flow_run_name=run_name, validate_parameters=False)
@form(ModelsInit)
def models_init(parameters: ModelsInit) -> State[Result]:
    """Prepare tables to serve several models; the column of vectors that they came with is taken over as it is."""
    if parameters.rollback:
        with _connected(parameters) as connection, refusable("put the tables back"):
            tables = model_tables.find(connection, parameters.roles.resolved())
            return _ended(rollback.roll_back(connection, tables))
    asked = asked_of(parameters)
    with _connected(parameters) as connection, refusable("prepare the tables"):
        tables, done = init.initialise(connection, asked)
        if parameters.rename is not None:
            done += rename.rename(connection, tables, parameters.rename, parameters.force)
    return _ended(done or ["the tables are prepared already"])


@flow(name="models-setup", flow_run_name=run_name, validate_parameters=False)
@form(ModelsSetup)
def models_setup(parameters: ModelsSetup) -> State[Result]:
    """Register models, and make the column and the index of each number of dimensions."""
    wanted = wanted_of(parameters)
    with _connected(parameters) as connection, refusable("set the models up"):
        tables = model_tables.find(connection, parameters.roles.resolved())
        done = setup.set_up(connection, tables, wanted, parameters.partial)
        if parameters.similarity_threshold is not None:
            done += switch.set_threshold(
                connection, tables, [one.name for one in wanted], float(parameters.similarity_threshold)
            )
    return _ended(done or ["all of that is there already"])


@flow(name="models-activate", flow_run_name=run_name, validate_parameters=False)
@form(ModelsActivate)
def models_activate(parameters: ModelsActivate) -> State[Result]:
    """Make a model the default of new searches and new documents, in one transaction."""
    with _connected(parameters) as connection, refusable("switch the model"):
        tables = model_tables.find(connection, parameters.roles.resolved())
        return _ended(switch.activate(connection, tables, parameters.model, parameters.force))


@flow(name="models-retire", flow_run_name=run_name, validate_parameters=False)
@form(ModelsRetire)
def models_retire(parameters: ModelsRetire) -> State[Result]:
    """Search by a model no more; once more, after the window, drop its vectors."""
    giving_way = pace.giving_way(database_url(parameters.database), float(parameters.database_share))
    with _connected(parameters) as connection, giving_way, refusable("retire the model"):
        tables = model_tables.find(connection, parameters.roles.resolved())
        days = float(parameters.rollback_days)
        return _ended(retire.retire(connection, tables, parameters.model, days, parameters.force))


def _connected(parameters: OfTables) -> Connection:
    return connect(database_url(parameters.database), "vecferry models")


def _ended(lines: Sequence[str]) -> State[Result]:
    return Completed(message="; ".join(lines), data={"done": list(lines)})
