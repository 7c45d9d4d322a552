"""The demos: which there are, by what the live table's one tells right from wrong, and that one whole."""

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from flows.command import demos
from flows.command.demos import clip_to_megadescriptor as image_demo, text_384_to_1536 as live_demo
from flows.command.demos.application import COUNT, Application, Order, Texts
from flows.command.demos.live import Live, working
from flows.forms.registry import FLOWS
from tasks.base.errors import UsageError, VecferryError
from tasks.base.words import listed
from tasks.embedders.hashing import HashingEmbedder
from tasks.stores.postgres.connection import Connection
from tests.helpers.command import command
from tests.helpers.local_models import needs_lite
from tests.helpers.terminal import COMMAND, terminal

OLD, NEW = HashingEmbedder(384), HashingEmbedder(1536)
LIVE = "text-384-to-1536"
ROWS = 60


def texts() -> Texts:
    """Those of a small table, and some more to come in."""
    contents = [f"what text {n} says of topic {n % 7}, chapter {n % 11}" for n in range(ROWS + 20)]
    fields = tuple(
        {"module": "m", "name": f"n{n}", "public": n % 8 > 0, "content": text} for n, text in enumerate(contents)
    )
    return Texts(fields, OLD.embed(contents).whole, NEW.embed(contents).whole, ROWS)


def answer(known: Texts, query: np.ndarray, vectors: np.ndarray) -> list[list[Any]]:
    """What exact search gives of the table as it begins."""
    shown = [known.fields[row]["public"] for row in range(known.rows)]
    similarities = np.where(shown, vectors[: known.rows] @ query, -1)
    nearest = np.argsort(-similarities)[:COUNT]
    return [[int(row), "m.n", known.fields[row]["content"], float(similarities[row])] for row in nearest]


def processes_of(directory: Path) -> list[str]:
    """The command lines that name the directory, of processes that have not ended after some seconds."""
    for _ in range(20):
        lines = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:  # it has ended
                continue
            lines += [line] if str(directory) in line else []
        if not lines:
            break
        time.sleep(0.5)
    return lines


def test_a_demo_is_found_by_its_migration() -> None:
    """A module of its own that is called like it, and nothing that lists it."""
    assert {demos.FIRST, LIVE} <= set(demos.names()) <= set(FLOWS)
    assert all(callable(demos.demo(flow).play) for flow in demos.names())


@pytest.mark.parametrize(("flow", "hint"), [("text-384-to-1537", f"Did you mean {LIVE}? "), ("nonsense", "")])
def test_a_migration_without_a_demo(flow: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that have one are listed, and nothing is made."""
    ended = command(capsys, "demo", flow, "--dir", str(tmp_path / "demo"))
    assert ended.exit == 2
    assert ended.complaint == (f"{flow!r} has no demo. {hint}The migrations that have one are {listed(demos.names())}")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A demo empties what an earlier one left, and nothing of the user's."""
    (tmp_path / "mine.txt").touch()
    ended = command(capsys, "demo", LIVE, "--dir", str(tmp_path))
    assert (ended.exit, ended.complaint) == (
        2,
        f"{tmp_path} is neither empty nor from an earlier demo: choose another --dir",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_answer_is_compared_with_what_it_has_to_be() -> None:
    """By the texts that a row has had, and the similarity that the model gives the text."""
    known = texts()
    judge, query = Application("", known), known.old[3]
    right = answer(known, query, known.old)
    assert judge.compare(right, query, known.old) == (0, "")
    assert judge.compare(right[1:], query, known.old) == (0, f"{COUNT - 1} instead of {COUNT} rows")
    assert judge.compare(right[::-1], query, known.old) == (0, "not the nearest first")
    foreign = [[right[0][0], "m.n", right[1][2], right[0][3]], *right[1:]]
    hidden = [[8, "m.n", known.fields[8]["content"], right[0][3]], *right[1:]]
    assert judge.compare(hidden, query, known.old) == (0, "row 8 is not public")
    assert "says what it never said" in judge.compare(foreign, query, known.old)[1]
    assert "has similarity" in judge.compare(answer(known, query * 0.9, known.old), query, known.old)[1]


def test_a_new_vector_may_be_behind_until_the_next_catch_up() -> None:
    """Of a row that was changed since the last one began, the earlier text still counts; of others, and of the old vectors,
    which the application makes itself, only what the row says."""
    known = texts()
    judge = Application("", known)
    for vectors, query in ((known.new, known.new[3]), (known.old, known.old[3])):
        rows = answer(known, query, vectors)
        row = rows[0][0]
        rows[0][2] = known.fields[ROWS + 5]["content"]
        judge.versions[row] = [(row, 100.0), (ROWS + 5, float("inf"))]
        for caught_up, behind in ((50.0, vectors is known.new), (150.0, False)):
            judge.order = Order(caught_up=caught_up)
            late, fault = judge.compare(rows, query, vectors)
            assert (late, bool(fault)) == (int(behind), not behind)


def test_the_application_works_and_notices_what_is_wrong(connection: Connection, database: str, tmp_path: Path) -> None:
    """It writes and searches while it is asked to, without a fault where nothing is wrong; vectors that somebody spoils are
    noticed by searches and by the last look at the table, and let the demo fail. It ends with its input."""

    def work(live: Live, until: str) -> None:
        for _ in range(100):
            time.sleep(0.1)
            live.tell()
            if getattr(live.total, until):
                break

    known = texts()
    live_demo.make(connection, known)
    with working(database, tmp_path, known) as live:
        work(live, "deleted")
        total = live.total
        assert min(total.inserted, total.updated, total.deleted, total.old) > 0
        assert (total.new, total.wrong, total.faults) == (0, 0, [])
        connection.execute(
            "UPDATE docstrings d SET embedding = next.embedding FROM docstrings next WHERE next.id = d.id + 1"
        )
        work(live, "wrong")
        assert "a search by the old model: row" in live.total.faults[0]
        with pytest.raises(VecferryError, match=r"the demo has failed: .* wrong, the first: a search by the old model"):
            live_demo.Scene(connection, live, OLD, NEW).leave()
        assert live.total.wrong > ROWS / 2, "nobody compared the table with what was written"
    assert live.process.returncode == 0


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_the_live_tables_demo(tmp_path: Path) -> None:
    """From an empty directory to the old model and back, with an application at work all the while: no answer is wrong, and
    nothing is left running."""
    done = subprocess.run([COMMAND, "demo", LIVE], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.findall(r"([\d,]+) rows written; ([\d,]+) answer.* ([\d,]+) wrong", done.stdout)
    assert len(told) >= 5
    assert {wrong for *_, wrong in told} == {"0"}
    assert "by the new model" in done.stdout.splitlines()[-3]
    assert [line[0] for line in done.stdout.splitlines() if re.match(r"\d\. ", line)] == list("123456")
    assert processes_of(tmp_path) == []


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_ctrl_c_in_the_live_tables_demo(tmp_path: Path) -> None:
    """One line, and neither the application nor a server outlives it."""
    with terminal("demo", LIVE, "--dir", str(tmp_path / "demo")) as screen:
        screen.wait_for("snapshot", 300)
        screen.type("\x03")
        assert screen.ended() == 1, screen.shown
        assert "vecferry: interrupted; " in screen.shown
        assert "Traceback" not in screen.shown
        assert processes_of(tmp_path) == []
        assert screen.left() == []


@needs_lite
@pytest.mark.whole
@pytest.mark.timeout(600)
def test_the_demo_of_images(tmp_path: Path) -> None:
    """Two real models of equal dimensions: each is searched by its own queries alone, before the switch, after it and after the way
    back; a vector that a late instance writes is put right; and nothing outlives it."""
    arguments = [COMMAND, "demo", "clip-to-megadescriptor", "--dir", "demo"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout
    answers = re.split(r"by the (?:old|new) model\n", shown)[1:]
    assert len(answers) == 3
    for part in answers:
        nearest = next(line for line in part.splitlines() if re.search(r"\d\.\d{4}", line))
        assert re.findall(r"[a-z]+", nearest) == ["astronaut", "chelsea", "coffee"]
    assert "the vectors are in embedding vector(1280), embedding_lite_1280 vector(1280)" in shown
    assert "public.reports → public.reports.embedding: 1 updated" in shown
    assert "the vectors are in embedding vector(1280), embedding_megadescriptor vector(1280)" in shown
    assert (tmp_path / "demo/home/runs/demo/report.html").read_text().count("data:image/jpeg") > 40
    assert processes_of(tmp_path) == []


def test_the_demo_of_images_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, with the command that installs it."""
    monkeypatch.setattr(image_demo, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="which are not installed: make models"):
        image_demo.play(tmp_path)
    assert not list(tmp_path.iterdir())
