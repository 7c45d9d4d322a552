"""Live tables onto a model of a server that is not OpenAI's: what it cannot take is set aside, and the commands that messages name go
on from there."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from tests.helpers import compatible
from tests.helpers.command import Ended, command
from tests.helpers.live_table import Table
from tests.helpers.openai_server import Asked, OpenAIServer, Reply

pytestmark = [pytest.mark.usefixtures("prefect"), pytest.mark.timeout(300)]

TARGETS = 'targets=[{"table": "docs", "text": "content"}]'


@dataclass
class Firewall:
    """A gateway that can be told to leave people alone."""

    word: str

    def __call__(self, asked: Asked) -> Reply | None:
        return compatible.firewall(self.word)(asked) if self.word else None


def run(capsys: Any, *more: str, model: str = "bge-m3", run_id: str = "r") -> Ended:
    given = ["run", "text-384-to-1536", "-p", TARGETS, "-p", f"embedder=openai/{model}?dimensions=1536"]
    return command(capsys, *given, "--run-id", run_id, "-p", "gates.sample=1", "-p", "batch_rows=30", *more)


def test_a_row_that_was_set_aside_goes_on_by_the_commands_that_are_named(
    connection: Any, provider: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its text is named with the server's words; once it is changed, or the server takes it, the run is whole; its neighbours were
    bought once."""
    table = Table(connection, rows=40, new=provider.vectors)
    table.say(7, "select * from attack")
    table.say(35, "drop table attack")
    firewall = Firewall("attack")
    provider.before = firewall
    ended = run(capsys)
    assert ended.exit == 3
    assert "row '7': refused, bge-m3 at " in ended.complaint
    assert "403 Attention Required! Sorry, you have been blocked" in ended.complaint
    rerun = "vecferry rerun r --batch 0 --batch 1"
    assert f"change what they say, then vecferry run text-384-to-1536 --run-id r, or {rerun} to have" in ended.complaint
    assert len(table.vectors()) == len(table.expected()) - 2

    table.say(7, "a harmless question")
    ended = command(capsys, "run", "text-384-to-1536", "--run-id", "r")
    assert (ended.exit, len(table.vectors())) == (3, len(table.expected()) - 1)
    assert "row '7'" not in ended.complaint
    assert "row '35'" in ended.complaint
    firewall.word = ""
    assert command(capsys, *rerun.split()[1:]).exit == 0
    assert table.vectors() == table.expected()
    bought = Counter(text for call in provider.answered() for text in call.inputs if text.startswith("what row"))
    assert bought.total() <= len(bought) + 3  # a sample of each verification


@pytest.mark.whole
def test_long_texts_are_cut_by_the_limit_of_the_server(
    connection: Any, provider: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """on_too_long=truncate holds though nobody said how long a text may be; what was cut is not taken for the whole by a run that
    cuts none, and what was not is not bought again."""
    table = Table(connection, rows=40, new=provider.vectors)
    table.say(7, "word " * 800)
    table.say(8, "neither short nor too long " * 20)
    provider.before = compatible.tei(512)
    ended = run(capsys, "-p", "on_too_long=truncate", model="BAAI/bge-large")
    assert ended.exit == 0, ended.err
    assert len(table.vectors()) == len(table.expected())
    assert command(capsys, "rollback", "r").exit == 0
    provider.calls.clear()
    ended = run(capsys, model="BAAI/bge-large", run_id="second")
    assert ended.exit == 3
    assert "row '7': too_long" in ended.complaint
    assert "must have less than 512 tokens. Given: 802" in ended.complaint
    assert len([call for call in provider.answered() if "what row" in call.inputs[0]]) <= 1
