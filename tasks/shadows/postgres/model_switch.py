"""The hot switch between models that tables serve."""

from tasks.base.errors import VerificationRefused
from tasks.base.words import counted
from tasks.runs import coverage, registry
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres.model_changes import registry_changed
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import ModelTables


def activate(connection: Connection, tables: ModelTables, name: str, force: bool = False) -> list[str]:
    """Makes the model the default of new searches and new documents, in one transaction; returns what was done. Raises
    VerificationRefused while it does not cover the chunks, unless forced, and UsageError where it cannot be searched."""
    model = registry.named(connection, tables, name)
    if model.building:
        registry.may_be_searched(model)
    if not force:
        check_coverage(connection, tables, model)
    before = locked(connection, lambda: _switch(connection, tables, model))
    if before and before.number == model.number:
        return [f"{model.name} is active already"]
    back = f"; back: vecferry models activate {before.name}" if before else ""
    return [f"{model.name} is active{back}"]


def check_coverage(connection: Connection, tables: ModelTables, model: RegisteredModel) -> None:
    """Raises VerificationRefused where chunks have no vector of it."""
    of_model = coverage.covered(connection, tables)[model.number]
    if of_model.missing:
        raise VerificationRefused(
            f"{model.name} covers {of_model.with_vector:,} of {counted(of_model.chunks, 'chunk')} ({of_model.share:.1%}): "
            f"{counted(of_model.missing, 'chunk')} would not be found. Bring it there with `vecferry run multi-model "
            f"-p target_model={model.name}`, or switch all the same with --force"
        )


def _switch(connection: Connection, tables: ModelTables, model: RegisteredModel) -> RegisteredModel | None:
    before = registry.set_active(connection, tables, model)
    registry_changed(connection, tables)
    return before
