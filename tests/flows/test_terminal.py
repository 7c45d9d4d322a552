"""What the command asks a person on a real terminal."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.runs import ledger
from tasks.stores.postgres.connection import Connection
from tests.helpers import prefect_database
from tests.helpers.terminal import terminal

pytestmark = pytest.mark.timeout(300)


@pytest.mark.whole
@pytest.mark.slow
@pytest.mark.parametrize(("answer", "state"), [("y", "cut_over"), ("n", "verified")])
def test_ask_shows_the_verification_and_then_asks(
    connection: Connection,
    chroma_dir: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    state: str,
) -> None:
    """`cutover=ask` without a Prefect server asks on the terminal, below the table of checks."""
    prefect_database.copy(tmp_path / "prefect/prefect.db")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    command = ["run", "chroma-to-pgvector", "--run-id", "asked", "-p", f"chroma.path={chroma_dir(count=40)}"]
    with terminal(*command, "-p", "cutover=ask", "-p", "gates.max_quarantined=7") as screen:
        screen.wait_for("Switch now?")
        screen.type(f"{answer}\n")
        status, shown = screen.ended(), screen.shown
    assert status == 0, shown
    assert shown.index("query parity") < shown.index("Switch now?")
    assert ledger.get(connection, "asked").state == state
    tables = shown.split("Switch now?")
    assert "≤ 7" in tables[0]
    assert ("≤ 7" in tables[1]) == (answer == "y"), "the switch was verified by other gates"
