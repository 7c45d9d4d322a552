"""From the forms about models to what is asked of the tables: models are opened by their names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flows.forms.models import ModelsActivate, ModelsInit, ModelsRetire, ModelsSetup, OfTables
from tasks.base.errors import UsageError
from tasks.base.words import typed
from tasks.embedders.bare_names import whole_name
from tasks.embedders.registry import space_of
from tasks.planning.shown_sql import lines, note
from tasks.runs import registry
from tasks.runs.database import Connection, connect, database_url, refusable
from tasks.runs.registry import UNKNOWN
from tasks.shadows.postgres.models import init, setup, switch
from tasks.shadows.postgres.models.changes import Change
from tasks.shadows.postgres.models.init import Asked, Source
from tasks.shadows.postgres.models.setup import Wanted
from tasks.stores.postgres import model_tables


def preflight(parameters: OfTables) -> None:
    """Raises UsageError or VerificationRefused for what can be told before anything is started, or changed."""
    with _reading(parameters) as connection:
        if isinstance(parameters, ModelsInit) and not parameters.rollback:
            asked = asked_of(parameters)
            if standing := init.problems(connection, init.draft(connection, asked), asked):
                raise UsageError("; ".join(standing))
            return
        tables = model_tables.find(connection, parameters.roles.resolved())
        if isinstance(parameters, ModelsSetup):
            wanted_of(parameters)
            if (threshold := parameters.similarity_threshold) is not None and not parameters.models:
                active = next((m.name for m in registry.listed(connection, tables) if m.active), "PROVIDER/MODEL")
                raise UsageError(
                    "similarity_threshold is set for the models that are named: "
                    f"vecferry models setup {typed(active)} -p similarity_threshold={threshold:g}"
                )
        elif isinstance(parameters, ModelsActivate | ModelsRetire):
            model = registry.named(connection, tables, parameters.model)
            if isinstance(parameters, ModelsActivate) and not parameters.force:
                switch.check_coverage(connection, tables, model)


def asked_of(parameters: ModelsInit) -> Asked:
    """What preparing the tables is asked for. Raises UsageError where the model cannot be opened."""
    written, source = parameters.source_model, None
    if written == UNKNOWN:
        source = Source(f"{UNKNOWN}/{UNKNOWN}", None)
    elif written is not None:
        name = whole_name(written)
        source = Source(name, space_of(name))
    roles = parameters.roles.resolved()
    return Asked(roles, source, parameters.create, parameters.adopt, parameters.replace_unique)


def wanted_of(parameters: ModelsSetup) -> list[Wanted]:
    """The models that are to be served. Raises UsageError where one cannot be opened."""
    names = dict.fromkeys(map(whole_name, parameters.models))
    return [Wanted(name, space_of(name)) for name in names]


@dataclass(frozen=True)
class Planned:
    """What a verb would change."""

    changes: list[Change]
    problems: list[str]
    notes: list[str]

    @property
    def sql(self) -> list[str]:
        """As a plan shows it."""
        return [line for one in self.changes for line in (note(f"{one.makes}:"), *lines(*one.statements))]


def planned_init(parameters: ModelsInit) -> Planned:
    """What ``init`` would change; nothing is written."""
    asked = asked_of(parameters)
    with _reading(parameters) as connection:
        draft = init.draft(connection, asked)
        problems = init.problems(connection, draft, asked)
        return Planned(init.changes(connection, draft, asked), problems, init.notes(connection, draft))


def planned_setup(parameters: ModelsSetup) -> Planned:
    """What ``setup`` would change; nothing is written."""
    wanted = wanted_of(parameters)
    with _reading(parameters) as connection:
        tables = model_tables.find(connection, parameters.roles.resolved())
        return Planned(setup.changes(connection, tables, wanted, parameters.partial), [], [])


@contextmanager
def _reading(parameters: OfTables) -> Iterator[Connection]:
    """A connection of a moment; what the database refuses is told in its words."""
    with connect(database_url(parameters.database), "vecferry models") as connection, refusable("look at the models"):
        yield connection
