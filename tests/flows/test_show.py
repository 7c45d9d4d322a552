"""What the command prints is what people called their things: nothing in a name or message is taken for markup."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import chromadb
import pytest
from rich.console import Console
from rich.progress import Progress

from flows.command import console, main, watching
from flows.command.fields import Parameter
from flows.command.show import plan, terminal
from flows.command.show.plan import show_parameters
from flows.command.show.run import show_checks, show_outcome, show_restored, show_run, show_runs
from tasks.base.errors import VecferryError, VerificationRefused
from tasks.runs.checkpoints import Batch
from tasks.runs.details import Loaded
from tasks.runs.outcome import Outcome, TargetOutcome, Touched
from tasks.runs.spending import Spending
from tasks.runs.status import Stage

Vecferry = Callable[..., tuple[int, str, str]]
HOSTILE = ("a[/b]c", "a[red]c", "a[/]c", "a:smile:c", "a\\[bold]c")
"""Each breaks, or loses something, where markup is read."""


@pytest.fixture(params=HOSTILE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def outcome(name: str) -> Outcome:
    """A run's outcome with that name wherever there can be one."""
    moment = datetime(2026, 11, 26, 12, tzinfo=UTC)
    target = TargetOutcome(name, f"public.{name}", "create", True, 5, 5, Touched(), 1, (), 384)
    return Outcome(
        run_id=name,
        flow="chroma-to-pgvector",
        database="DATABASE_URL",
        source=f"chroma /{name}",
        state="verified",
        now=None,
        exit=0,
        error=f"error {name}",
        targets=(target,),
        gates=None,
        spent=None,
        started=moment,
        changed=moment,
        seconds=1.0,
        snapshot=None,
        report=None,
        log=f"/{name}.log",
        next=f"vecferry cutover {name}",
        later=None,
    )


def shown(capsys: pytest.CaptureFixture[str], show_it: Callable[[], object]) -> str:
    show_it()
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_a_message_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever an error quotes stands in the one line that the command ends with, whose status is the error's."""
    for error in (VerificationRefused(f"id {name}"), VecferryError(f"id {name}")):
        assert main._end(error) == error.exit_status
        assert capsys.readouterr().err == f"vecferry: id {name}\n"
    assert main._end(OSError(f"file {name}")) == 1
    assert f"OSError: file {name} (" in capsys.readouterr().err


def test_a_path_with_brackets_is_a_mistake_like_another(vecferry: Vecferry, name: str) -> None:
    """A source that is not there ends with 2 and its whole path."""
    code, _, err = vecferry("run", "chroma-to-pgvector", "-p", f"chroma.path=/nowhere/{name}")
    assert code == 2, err
    assert f"/nowhere/{name}" in err
    assert "Traceback" not in err


def test_a_plan_names_everything_as_it_is(vecferry: Vecferry, tmp_path: Path, name: str) -> None:
    """Metadata keys and a table of somebody else's are shown in the plan as they are called."""
    client = chromadb.PersistentClient(path=str(tmp_path / "chroma"))
    client.create_collection("docs").add(ids=["1"], embeddings=[[1.0, 2.0]], documents=["text"], metadatas=[{name: 1}])
    client.close()
    options = (f"chroma.path={tmp_path / 'chroma'}", f"tables.docs={json.dumps(name)}", "collections=[docs]")
    code, out, err = vecferry("plan", "chroma-to-pgvector", *(x for o in options for x in ("-p", o)))
    assert code in (0, 2), err
    assert f"{name} (int)" in out
    assert out.count(name) > 1


def test_runs_and_their_outcome_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A run's name, source, error, stages, batches and files, in `status` and after a command."""
    stage = Stage(name, 1, 1, 1, 1, 1, 1.0)
    batch = Batch("load", 1, "failed", 1, 0, 0, f"batch {name}", 0.0, datetime.now(UTC), Loaded(0))
    one = shown(capsys, lambda: show_run(outcome(name), [stage], [batch], as_json=False))
    for text in (f"{name}: verified", f"chroma /{name}", f"error {name}", f"batch {name}", f"/{name}.log"):
        assert text in one
    assert f"\n{name} " in one
    assert f"vecferry cutover {name}" in shown(capsys, lambda: show_runs([outcome(name)], [], as_json=False))
    assert f"{name} → public.{name}" in shown(capsys, lambda: show_outcome(outcome(name), as_json=False))


def test_parameters_restores_and_progress_are_printed_as_they_are(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A default, a directory and what a stage says of itself."""
    parameter = Parameter(name, f"text {name}", False, name, f"help {name}")
    listed = shown(capsys, lambda: show_parameters([parameter], as_json=False))
    assert f"{name}  text {name}; default {name}\n    help {name}" in listed
    restored = {"restored": {name: 5}, "into": f"r{name}", "remarks": [f"note {name}"]}
    told = shown(capsys, lambda: show_restored(restored, as_json=False))
    assert all(text in told for text in (f"{name}: 5 records", f"into r{name}", f"note {name}"))

    def bar() -> None:
        with Progress(*watching.COLUMNS, console=terminal.err, auto_refresh=False) as progress:
            progress.add_task(name, total=1, note=f"phase {name}")

    assert f"phase {name}" in shown(capsys, bar)


@pytest.mark.parametrize(("passed", "mark"), [(True, "✓"), (False, "✗"), ("True", "✓"), ("False", "✗")])
def test_checks_are_marked_by_what_the_report_says(
    name: str, passed: object, mark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check that failed has a cross, in the reports of 0.1.0 too, where "False" is a word."""
    check = {"name": f"check {name}", "passed": passed, "found": f"found {name}", "wanted": "0", "looked_at": 3}
    target = {"name": name, "table": f"public.{name}", "checks": [check], "notes": [f"note {name}"]}
    (tmp_path / "report.json").write_text(json.dumps({"targets": [target]}))
    table = shown(capsys, lambda: show_checks(str(tmp_path / "report.json")))
    assert {m for m in "✓✗" if m in table} == {mark}
    for text in (f"{name} → public.{name}", f"check {name}", f"found {name}", f"note {name}"):
        assert text in table


def test_help_ends_its_lines_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the terminal's width, indented; a pipe gets a line a parameter, whatever its length."""
    help_ = "where the new vectors lie: in a column of the table, or in a table beside it"
    wrapped = ["    where the new vectors lie: in a", "    column of the table, or in a table"]
    for is_terminal, lines in ((True, wrapped), (False, [f"    {help_}"])):
        written = io.StringIO()
        monkeypatch.setattr(plan, "out", Console(file=written, force_terminal=is_terminal, width=40, soft_wrap=True))
        show_parameters([Parameter("layout", "text", False, None, help_)], as_json=False)
        assert [line.rstrip() for line in written.getvalue().splitlines()[1 : 1 + len(lines)]] == lines


def test_letters_that_a_terminal_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are shown by their numbers, and so is what is no letter: part of the name of a file."""
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, "ascii"))
    console.prepare_environment()
    print("Zürich \udcff", flush=True)
    assert raw.getvalue() == b"Z\\xfcrich \\udcff\n"


def test_what_was_spent_on_texts_that_were_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """Is said of the checks, and nothing was saved that nobody has a price of."""
    for bought, line in (
        (0, "spent $0.0016 on checks: 13,636 tokens in 8 requests; 200 texts were kept already\n"),
        (
            100,
            "spent $0.0016 on 100 texts: 13,636 tokens in 8 requests; 200 more texts were kept already, which saved $0.0032\n",
        ),
    ):
        show_outcome(replace(outcome("a"), spent=Spending(8, 13_636, 0.0016, bought, 200)), as_json=False)
        assert line in capsys.readouterr().out
