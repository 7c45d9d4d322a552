"""Live tables onto a paid model through their whole life, over HTTP, while the provider plays up."""

import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.catch_up import catch_up
from flows.cutover import cutover
from tasks.base.errors import FatalError, VerificationRefused
from tasks.embedders.openai import server
from tasks.embedders.openai.server import ATTEMPTS, PROBES, TIMEOUT, Server
from tasks.embedders.registry import open_embedder
from tasks.runs import status
from tasks.stores.postgres.connection import Connection
from tests.helpers.lifecycle import Migration, Rows, drive
from tests.helpers.live_table import LAYOUTS, Table, migration_of
from tests.helpers.openai_server import OpenAIServer, shuffled, with_vector
from tests.helpers.sampling import sampled

pytestmark = pytest.mark.usefixtures("prefect")

MODEL = "openai/text-embedding-3-small"
SAMPLED = {"sample": 1}
"""Gates of a verification that buys one text again."""
HASTE = 20
"""How many times shorter than they say the waits of a hasty account are."""
PATIENCE = 1.0
"""Seconds until an impatient account gives up waiting for an answer."""


def bought(provider: OpenAIServer, faulty: bool = False) -> Counter[str]:
    """How often each text was paid for with an answer that arrived; ``faulty`` where those of planted faults do too."""
    calls = [call for call in provider.answered() if faulty or not call.faulty]
    return Counter(text for call in calls for text in call.inputs if text not in PROBES)


def beside_the_spoilt(provider: OpenAIServer) -> Counter[str]:
    """The texts of faulty answers whose last vector alone was spoilt: what is good is kept."""
    return Counter(text for call in provider.answered() if call.faulty for text in call.inputs[:-1])


def hasten(monkeypatch: pytest.MonkeyPatch, timeout: float) -> None:
    """From now on the clocks of new servers run faster, save for the time until an answer must be there."""
    clock, sleep = lambda: time.monotonic() * HASTE, lambda delay: time.sleep(delay / HASTE)
    monkeypatch.setattr(server, "Server", partial(Server, timeout=timeout, clock=clock, sleep=sleep))


@dataclass(frozen=True)
class Trouble:
    """What passes by itself."""

    fault: dict[str, Any]
    times: int = 1
    """In a row, each time that the flow goes to the provider."""
    wait: float = 0.375
    """Seconds before the same is asked again: as many as the provider says, else half a second, less a quarter."""
    timeout: float = TIMEOUT
    answers: bool = False
    """Whether there is a good answer all the same."""


TROUBLES = {
    "retry-after": Trouble({"status": 429, "headers": {"retry-after": "5"}}, wait=5),
    "retry-after-ms": Trouble({"status": 429, "headers": {"retry-after-ms": "5000"}}, wait=5),
    "no-retry-after": Trouble({"status": 429, "code": "rate_limit_exceeded"}, times=2),
    "storm": Trouble({"status": 500}, times=4),
    "slow": Trouble({"delay": PATIENCE + 0.2}, timeout=PATIENCE),
    "cut": Trouble({"cut": True}, times=2),
    "out-of-order": Trouble({"spoil": shuffled}, times=9, wait=0, answers=True),
}


def troubled(migration: Migration, provider: OpenAIServer, trouble: Trouble) -> Migration:
    """The provider plays up in each run, and each time that there is something to catch up with."""

    def plant() -> None:
        # Not at the very first, by which it is learned how to ask: the probe, and a request of too many texts.
        provider.plant(**trouble.fault, times=trouble.times, after=0 if provider.calls else 2)

    def run(run_id: str) -> dict[str, Any]:
        plant()
        return migration.run(run_id=run_id)

    def change() -> None:
        plant()
        migration.change()

    return replace(migration, run=run, change=change)


@pytest.mark.parametrize(
    ("name", "layout"),
    sampled(zip(TROUBLES, cycle(LAYOUTS), strict=False), ("cut", "side_table")),
)
def test_what_passes_by_itself_is_waited_for(
    connection: Connection, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch, name: str, layout: str
) -> None:
    """Every vector is right and bought once, no batch fails, and nothing is asked again before its time."""
    trouble = TROUBLES[name]
    hasten(monkeypatch, trouble.timeout)
    provider.max_inputs = 5  # several requests a batch, and so several at a time
    table = Table(connection, new=provider.vectors)
    migration = migration_of(table, layout, MODEL, gates=SAMPLED)

    def run(run_id: str) -> dict[str, Any]:
        result = migration.run(run_id=run_id)
        tries = connection.execute("SELECT max(attempts) FROM vecferry.batch WHERE stage = 'load'").fetchone()
        assert tries == (1,), "a batch failed"
        return result

    drive(troubled(replace(migration, run=run, gates=SAMPLED), provider, trouble))
    played = [call for call in provider.calls if call.faulty]
    for call in played:
        second = [other.at for other in provider.calls if other.at > call.at and other.inputs == call.inputs]
        assert all(at - call.at >= trouble.wait / HASTE for at in second), "asked again too early"
    assert len(played) >= 5, "in two runs, and three times that there was something to catch up with"
    assert trouble.answers or all(fault.times == 0 for fault in provider.faults)
    everything_once(connection, bought(provider, faulty=trouble.answers))


def everything_once(connection: Connection, texts: Counter[str]) -> None:
    """Each text was bought once in a whole life, and its samples: two runs and two cutovers verify."""
    assert connection.execute("SELECT count(*) FROM vecferry.vector").fetchone() == (len(texts),)
    assert texts.total() == len(texts) + 4 * SAMPLED["sample"]


@pytest.mark.whole
def test_a_storm_that_outlasts_a_request(
    connection: Connection, provider: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails a batch, which is tried again: the run goes on by itself, and buys nothing twice. One worker, so that one
    request meets all of it."""
    hasten(monkeypatch, TIMEOUT)
    provider.plant(status=500, times=ATTEMPTS, after=1)
    table = Table(connection, new=provider.vectors)
    assert migration_of(table, "side_table", MODEL, gates=SAMPLED, workers=1).run(run_id="life")["state"] == "verified"
    tries = connection.execute("SELECT array_agg(attempts ORDER BY attempts) FROM vecferry.batch WHERE stage = 'load'")
    assert tries.fetchone() == ([1, 1, 2],)
    assert table.vectors() == table.expected()
    assert bought(provider).total() == len(bought(provider)) + SAMPLED["sample"]


FATAL = {
    "quota": ({"status": 429, "code": "insufficient_quota"}, "insufficient_quota"),
    "key": ({"status": 401}, "401"),
    "dimension": ({"spoil": with_vector(lambda vector: vector[:-1])}, "1535 dimensions, not the 1536"),
    "nan": ({"spoil": with_vector(lambda vector: np.append(vector[:-1], np.nan))}, "NaN or infinity"),
}


@pytest.mark.parametrize(
    ("name", "layout"),
    sampled(zip(FATAL, cycle(LAYOUTS), strict=False), ("key", "side_table")),
)
def test_what_does_not_pass_by_itself_stops_the_run(
    connection: Connection, provider: OpenAIServer, name: str, layout: str, tmp_path: Path
) -> None:
    """At most ten more calls, nothing quarantined and no wrong vector anywhere; once it is put right the same run goes on,
    buys what was not bought, and lives its whole life."""
    fault, reason = FATAL[name]
    table = Table(connection, rows=120, new=provider.vectors)
    migration = replace(migration_of(table, layout, MODEL, gates=SAMPLED, batch_rows=20), gates=SAMPLED)
    provider.max_inputs, provider.delay = 2, 0.01  # ten requests a batch, to see that they are not sent
    provider.plant(**fault, after=39)  # when the first batches are there
    with pytest.raises(FatalError, match=reason):
        migration.run(run_id="life")
    first = min(call.ended for call in provider.calls if call.faulty)
    assert sum(call.at > first for call in provider.calls) <= 10
    outcome = status.outcome(connection, "life")
    assert (outcome.state, outcome.exit, outcome.targets[0].quarantined) == ("failed", 1, 0)
    assert not (tmp_path / "home/runs/life/quarantine").exists()
    kept, expected = table.vectors(), table.expected()
    assert kept
    assert kept.items() <= expected.items()
    assert len(expected) - len(bought(provider)) > 10 * provider.max_inputs, "ten calls more, and all were bought"

    provider.heal()
    drive(migration)
    everything_once(connection, bought(provider) + (beside_the_spoilt(provider) if name == "nan" else Counter()))


@pytest.mark.whole
def test_a_key_that_is_revoked_later(connection: Connection, provider: OpenAIServer) -> None:
    """What changed waits to be caught up with and nothing is switched; with the key restored the switch, and catching up
    after it, go on."""
    table = Table(connection, new=provider.vectors)
    migration = migration_of(table, "column", MODEL, gates=SAMPLED)
    assert migration.run(run_id="life")["state"] == "verified"
    for switched, go_on in ((False, cutover), (True, catch_up)):
        migration.change()
        provider.plant(status=401)
        with pytest.raises(FatalError, match="401"):
            go_on(run_id="life", gates=SAMPLED)
        assert table.switched() == switched
        provider.heal()
        if switched:
            open_embedder(MODEL).account.server.mend()  # type: ignore  # as another process would find it
        assert go_on(run_id="life", gates=SAMPLED)["state"] == "cut_over"
        assert migration.served() == migration.expected()


@pytest.mark.whole
@pytest.mark.parametrize("layout", sampled(LAYOUTS, "side_table"))
def test_a_text_that_is_refused_is_set_aside_alone(
    connection: Connection, provider: OpenAIServer, layout: str, tmp_path: Path
) -> None:
    """A run that quarantined rows is neither green nor switched until their number is accepted. Then every other row has
    its vector, a row whose text is refused later loses its own, and one that says something else gets one."""
    table = Table(connection, new=provider.vectors)
    provider.plant(status=400, message="bad input", text="row 7")
    with pytest.raises(VerificationRefused, match=r"quarantined \(1 \('7'\), required ≤ 0\)") as raised:
        migration_of(table, layout, MODEL, gates=SAMPLED).run(run_id="life")
    assert "row '7': refused, text-embedding-3-small at http://127.0.0.1:" in str(raised.value)
    assert (
        ": 400 invalid_request_error bad input. To go on: change what it says, then vecferry run text-384-to-1536 "
        in str(raised.value)
    )
    assert "--run-id life, or vecferry rerun life --batch 0 to have it tried as before. " in str(raised.value)
    outcome = status.outcome(connection, "life")
    assert (outcome.state, outcome.exit, outcome.targets[0].quarantined) == ("failed", 3, 1)
    with pytest.raises(VerificationRefused, match="quarantined"):
        cutover(run_id="life", gates=SAMPLED)
    assert not table.switched()

    accepted = {**SAMPLED, "max_quarantined": 2}
    migration = migration_of(table, layout, MODEL, gates=accepted)
    text = iter([(8, "as row 7"), (7, "good words"), (9, "as row 7 too"), (8, "better words")])

    def change() -> None:
        migration.change()
        table.say(*next(text))

    def expected() -> Rows:
        bad = connection.execute("SELECT id::text FROM docs WHERE content LIKE '%row 7%'").fetchall()
        return {name: vector for name, vector in migration.expected().items() if (name,) not in bad}

    drive(replace(migration, change=change, expected=expected, gates=accepted))
    assert status.outcome(connection, "life").targets[0].quarantined == 2
    folder = tmp_path / "home/runs/life/quarantine"
    kept = [row for file in folder.iterdir() for row in pq.read_table(file).to_pylist()]
    assert {(row["id"], row["document"], row["class"]) for row in kept} == {
        ("7", "what row 7 says of topic 0, version 8", "refused"),
        ("8", "as row 7", "refused"),
        ("9", "as row 7 too", "refused"),
    }
    assert all("bad input" in row["message"] for row in kept)
