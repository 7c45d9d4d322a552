"""Every verb with a fault planted at each of its statements: it never ends with 0 unless its work is done.

``make test`` plants at every 25th statement, or 40th of the many of a live table; ``make chaos`` at each.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tasks.runs import ledger
from tasks.stores.postgres.connection import Connection
from tests.helpers.command import Ended, command
from tests.helpers.live_table import Table
from tests.helpers.planted import FAULT, Planter
from tests.helpers.sampling import sampled

pytestmark = [pytest.mark.usefixtures("prefect"), pytest.mark.timeout(1800)]

Run = Callable[..., Ended]
DONE = {
    "run": ("verified",),
    "cutover": ("cut_over",),
    "rollback": ("rolled_back",),
    "contract": ("contracted",),
    "catch-up": ("cut_over",),
    "verify": ("cut_over",),
}
"""The state of a run whose verb has done its work."""


@pytest.fixture
def parameters(request: Any, connection: Connection, chroma_dir: Callable[..., str]) -> list[str]:
    """Of a run of either flow."""
    if request.param == "chroma":
        return ["chroma-to-pgvector", "-p", f"chroma.path={chroma_dir(count=20)}"]
    Table(connection)
    targets = 'targets=[{"table": "docs", "text": "content"}]'
    return ["text-384-to-1536", "-p", targets, "-p", "embedder=hashing/1536", "-p", "old_embedder=hashing/384"]


@pytest.mark.parametrize(
    ("parameters", "every"),
    sampled([("chroma", 25), ("live", 40), ("chroma", 1), ("live", 1)], ("chroma", 25)),
    indirect=["parameters"],
)
def test_no_verb_ends_well_with_a_fault_in_it(
    parameters: list[str], connection: Connection, capsys: pytest.CaptureFixture[str], every: int
) -> None:
    """A run's whole life: each verb ends otherwise than 0, in JSON too, with one line that says why, or has done its work."""
    live = parameters[0] != "chroma-to-pgvector"
    life = ["run", "cutover", "verify", *(["catch-up"] if live else []), "rollback", "cutover", "contract"]
    planted = 0
    for verb in life:
        more = {"run": [*parameters, "--run-id", "r"], "contract": ["r", "-p", "rollback_days=0"]}.get(verb, ["r"])
        planter = Planter("r")
        while True:
            with planter.planting(every):
                ended = command(capsys, verb, *more, "--json")
            if planter.refused is None:
                assert ended.exit == 0, (verb, ended)
                break
            planted += 1
            record = ledger.find(connection, "r")
            if ended.exit:
                assert FAULT in ended.complaint, (planter.refused, ended)
                assert record is None or ended.json["exit"] == ended.exit, (planter.refused, ended)
            else:
                assert record is not None
                assert record.state in DONE[verb], (planter.refused, ended)
        assert ledger.get(connection, "r").state in DONE[verb]
    assert planted >= len(life) / 2
