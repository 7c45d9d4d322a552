"""The hot switch between models that tables serve."""

from collections.abc import Sequence

from tasks.base.errors import VerificationRefused
from tasks.base.words import counted, typed
from tasks.runs import coverage, registry
from tasks.runs.registry import RegisteredModel
from tasks.shadows.postgres.models import threshold as model_threshold
from tasks.shadows.postgres.models.changes import registry_changed
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.locking import locked
from tasks.stores.postgres.model_tables import ModelTables


def activate(connection: Connection, tables: ModelTables, name: str, force: bool = False) -> list[str]:
    """Makes the model the default of new searches and new documents, in one transaction; returns what was done. Raises
    VerificationRefused while it does not cover the chunks, unless forced, and UsageError where it cannot be searched."""
    model = registry.named(connection, tables, name)
    if model.building:
        registry.may_be_searched(model)
    before = locked(connection, lambda: _switch(connection, tables, model, force))
    if before and before.number == model.number:
        return [f"{model.name} is active already"]
    back = f"; back: vecferry models activate {typed(before.name)}" if before else ""
    return [f"{model.name} is active{back}", *_without_threshold(before, model)]


def set_threshold(connection: Connection, tables: ModelTables, names: Sequence[str], threshold: float) -> list[str]:
    """The similarity below which a search by these models gives no row, of all searches from now on; returns what was done."""

    def change() -> None:
        for name in names:
            model = registry.named(connection, tables, name)
            registry.set_threshold(connection, model, threshold)
            model_threshold.stays(connection, model)
        registry_changed(connection, tables)

    locked(connection, change)
    return [f"similarity threshold {threshold:g} of {name}" for name in names]


def check_coverage(connection: Connection, tables: ModelTables, model: RegisteredModel) -> None:
    """Raises VerificationRefused where chunks have no vector of it, unless it is the default already."""
    if model.active:
        return
    if not coverage.is_counted(connection, tables):
        raise VerificationRefused(
            f"what {model.name} covers has not been counted yet: `vecferry models init` goes on with that"
        )
    of_model = coverage.covered(connection, tables)[model.number]
    if of_model.missing:
        raise VerificationRefused(
            f"{model.name} covers {of_model.with_vector:,} of {counted(of_model.chunks, 'chunk')} ({of_model.share:.1%}): "
            f"{counted(of_model.missing, 'chunk')} would not be found. Bring it there with `vecferry run multi-model "
            f"-p {typed(f'target_model={model.name}')}`, or switch all the same with --force"
        )


def _without_threshold(before: RegisteredModel | None, model: RegisteredModel) -> list[str]:
    if before is None or before.similarity_threshold is None or model.similarity_threshold is not None:
        return []
    return [
        f"{model.name} has no similarity threshold, and {before.name} has {before.similarity_threshold:g}: whatever is nearest is an "
        f"answer now. To try one: vecferry models setup {typed(model.name)} -p similarity_threshold={before.similarity_threshold:g}"
    ]


def _switch(connection: Connection, tables: ModelTables, model: RegisteredModel, force: bool) -> RegisteredModel | None:
    before = registry.set_active(connection, tables, model)
    if not force and not (before and before.number == model.number):
        check_coverage(connection, tables, model)  # by now nobody who drops its vectors goes on with that
    registry_changed(connection, tables)
    return before
