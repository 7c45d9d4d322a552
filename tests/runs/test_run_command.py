"""A command that a message names can be typed as it stands, also for a run of another database than the default one."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.catch_up import catch_up
from flows.chroma_to_pgvector import chroma_to_pgvector
from flows.command import interrupt
from flows.contract import contract
from flows.rollback import rollback
from flows.text_384_to_1536 import text_384_to_1536
from tasks.base.errors import BatchesFailed, UsageError, VecferryError
from tasks.runs import holding
from tasks.stores.postgres.connection import Connection
from tests.helpers import live
from tests.helpers.command import command
from tests.helpers.servers import free_port

pytestmark = pytest.mark.usefixtures("prefect")
COMMAND = re.compile(r"vecferry (?:cutover|contract|rollback|rerun|status|snapshot|run)\b[^;,:`(\n]*")
OTHER = "OTHER_URL"


@pytest.fixture
def other(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """The only database that there is, under another name than the default."""
    monkeypatch.setenv(OTHER, os.environ["DATABASE_URL"])
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    return connection


def named(call: Callable[[], object], error: type[VecferryError]) -> list[str]:
    """The commands in the message with which a call fails."""
    with pytest.raises(error) as raised:
        call()
    return [text.strip() for text in COMMAND.findall(str(raised.value))]


def test_a_run_of_collections(
    other: Connection, chroma_dir: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failed batches, a run at work, a run that has to be taken back first, and one that was rolled back."""
    at = {"run_id": "r", "database": OTHER}
    option = f" -p database={OTHER}"
    source = {"chroma": {"path": chroma_dir(count=20)}, "batch_rows": 10}
    chroma_to_pgvector(**source, **at)
    rollback(**at)
    part = next((tmp_path / "home/runs/r/snapshot").rglob("part-00001.parquet"))
    good = part.read_bytes()
    part.write_bytes(b"x" + good[1:])
    assert named(lambda: chroma_to_pgvector(**at), BatchesFailed) == [f"vecferry rerun r{option}"]
    assert named(lambda: catch_up(**at), UsageError) == [f"vecferry rerun r{option}"]
    part.write_bytes(good)
    with holding.sole_runner(os.environ[OTHER], "r"):
        assert named(lambda: chroma_to_pgvector(**at), UsageError) == [f"vecferry status r{option}"]
    chroma_to_pgvector(**at, cutover="auto", batch_ids=[1])
    second = lambda: chroma_to_pgvector(**at, batch_ids=[1])  # noqa: E731
    assert named(second, UsageError) == [f"vecferry rollback r{option}"]
    rollback(**at)
    dropped = command(capsys, "contract", "r", "-p", f"database={OTHER}")
    assert dropped.exit == 2
    assert dropped.err.strip().endswith(f"vecferry contract r{option} --yes")
    contract(**at)


def test_an_interruption_that_cannot_ask_the_ledger() -> None:
    """The last line of the command names the database whose runs are to be looked at."""
    program = (
        "import sys; sys.argv[1:] = ['run']; from flows.command import interrupt; "
        f"interrupt.concerning('r', '{OTHER}'); interrupt._command.unwound.set(); interrupt._end_process()"
    )
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {OTHER: url}, capture_output=True, text=True
    )
    assert f"`vecferry status -p database={OTHER}`" in done.stderr
    assert done.returncode == interrupt.EXIT_STATUS


def test_the_run_that_vectors_belong_to(other: Connection) -> None:
    """A later run is told what to do with a run that was rolled back, and with a smoke run."""
    live.make_table(other, 40)
    wanted = {"targets": [{"table": "docs", "text": "content"}], "embedder": "hashing/1536", "database": OTHER}
    option = f" -p database={OTHER}"
    text_384_to_1536(**wanted, run_id="smoke", limit=10)
    assert named(lambda: text_384_to_1536(**wanted), UsageError) == [f"vecferry rollback smoke{option}"]
    assert named(lambda: text_384_to_1536(**wanted, run_id="next"), VecferryError) == [
        f"vecferry rollback smoke{option}"
    ]
    rollback(run_id="smoke", database=OTHER)
    text_384_to_1536(**wanted, run_id="r", cutover="auto")
    rollback(run_id="r", database=OTHER)
    commands = [f"vecferry {verb} r{option}" for verb in ("cutover", "contract")]
    assert named(lambda: text_384_to_1536(**wanted), UsageError) == commands
