"""What the tests of shadows share."""

from collections.abc import Iterator

import pytest

from tasks.stores.postgres.connection import Connection


@pytest.fixture
def people(connection: Connection) -> Iterator[tuple[str, str, str]]:
    """Three roles: one that owns all of it, one that may search, and one that may use the schema and no more."""
    keeper, app, outsider = (f"{what}_{connection.info.dbname}" for what in ("keeper", "app", "outsider"))
    for name in (keeper, app, outsider):
        connection.execute(f"CREATE ROLE {name} LOGIN")
    yield keeper, app, outsider
    connection.execute("RESET ROLE")
    for name in (keeper, app, outsider):  # they are the server's, and other tests try functions as everybody
        connection.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.fixture(autouse=True)
def driven(kept_connections: None) -> None:
    """Shadows are driven by plain functions here, and not by the flow that keeps their connections open."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change whose proof takes too long is tried again at once."""
    monkeypatch.setattr("tasks.shadows.postgres.unit.PAUSE", 0.0)
