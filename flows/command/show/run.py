"""Runs, and what has come of them, as the command prints them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from flows.command.show.bought import show_bought
from flows.command.show.terminal import bold, out, print_json, red, yellow
from tasks.base import files
from tasks.base.words import counted, duration
from tasks.runs.checkpoints import Batch
from tasks.runs.database import ledger_databases
from tasks.runs.outcome import Outcome
from tasks.runs.purchases import Purchases
from tasks.runs.spending import Spending
from tasks.runs.status import Stage

WORDS = {"catch_up": "catch up", "list": "list ids"}
"""What people call a stage, where the ledger calls it otherwise."""
PASSED = (True, "True")
"""What a report calls passed: those of 0.1.0 hold some of NumPy's booleans as words."""


def show_runs(outcomes: list[Outcome], bought: Sequence[Purchases], as_json: bool) -> None:
    """All runs, and for people what was bought outside of them."""
    if as_json:
        print_json([outcome.as_json() for outcome in outcomes])
        return
    if not outcomes:
        out.print("no runs yet; start with: vecferry plan chroma-to-pgvector -p chroma.path=DIRECTORY")
    for outcome in outcomes:
        out.print(Text.assemble(bold(outcome.run_id), f"  {_state(outcome)}  {_counts(outcome)}"))
        for line in (
            f"{outcome.flow}, {outcome.source}{ledger_of(outcome.database)}",
            _times(outcome),
            *_steps(outcome),
        ):
            out.print(f"  {line}")
    show_bought(bought)


def ledger_of(database: str) -> str:
    """``, ledger in DATABASE_URL`` where there are two of them; empty where there is one."""
    return f", ledger in {database}" if len(ledger_databases()) > 1 else ""


def show_run(outcome: Outcome, stages: list[Stage], failed: list[Batch[Any]], as_json: bool) -> None:
    """One run: what it is, its stages, what failed, and what to do."""
    if as_json:
        print_json(outcome.as_json())
        return
    out.print(Text.assemble(f"{outcome.run_id}: ", bold(_state(outcome))))
    for line in (f"{outcome.flow}, {outcome.source}{ledger_of(outcome.database)}", _times(outcome), outcome.error):
        if line:
            out.print(line)
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "done", "pending", "failed", "rows", "quarantined", "seconds"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in stages:
        counts = (stage.done, stage.pending, stage.failed, stage.rows, stage.quarantined, stage.seconds)
        table.add_row(WORDS.get(stage.name, stage.name), *(f"{count:,}" for count in counts))
    out.print(table)
    _print_shapes(outcome)
    for target in outcome.targets:
        if target.queue and target.queue.rows:
            out.print(f"{target.table}: {target.queue}")
    for batch in failed[:20]:
        attempts = counted(batch.attempts, "attempt")
        out.print(f"batch {batch.number} failed in {batch.stage} after {attempts}: {batch.error}")
    _print_tail(outcome)


def _spent(spent: Spending) -> str:
    made = f"{counted(spent.tokens, 'token')} in {counted(spent.requests, 'request')}"
    if spent.reused and not spent.bought:  # what was asked for are samples of them
        return f"spent ${spent.dollars:.4f} on checks: {made}; {counted(spent.reused, 'text', 'were')} kept already"
    saved = f"; {counted(spent.reused, 'more text', 'were')} kept already, which saved ${spent.saved:.4f}"
    return f"spent ${spent.dollars:.4f} on {counted(spent.bought, 'text')}: {made}{saved if spent.reused else ''}"


def show_outcome(outcome: Outcome, as_json: bool, checked: bool = True, moved: bool = True) -> None:
    """What a run has come to; with the verification table where this command made or used it (``checked``), and what it did
    to each target where it ``moved`` rows."""
    if as_json:
        print_json(outcome.as_json())
        return
    if checked and outcome.report:
        show_checks(outcome.report.removesuffix("html") + "json")
    for t in outcome.targets if moved else []:
        quarantined = ("; ", red(f"{t.quarantined:,} quarantined")) if t.quarantined else ()
        out.print(Text.assemble(str(t), *quarantined))
    if moved:
        _print_shapes(outcome)
    if spent := outcome.spent:
        out.print(_spent(spent))
    out.print(bold(outcome.state))
    _print_tail(outcome)


def show_checks(path: str) -> None:
    """The verification tables of a report, one a target."""
    data = json.loads(files.read(path))
    for target in data["targets"]:
        title = f"{target['name']} → {target['table']}"
        table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
        for column in ("", "check", "result", "required", "checked"):
            table.add_column(column, justify="right" if column == "checked" else "left", overflow="fold")
        for check in target["checks"]:
            mark = Text("✓", "green") if check["passed"] in PASSED else red("✗")
            table.add_row(mark, check["name"], check["found"], check["wanted"], f"{check['looked_at']:,}")
        for note in target["notes"]:
            table.add_row("", "note", note, "", "")
        out.print(table)


def show_done(lines: list[str], as_json: bool) -> None:
    if not as_json:
        for line in lines:
            out.print(line)


def show_restored(restored: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(restored)
        return
    for name, rows in restored["restored"].items():
        out.print(f"{name}: {counted(rows, 'record')} restored into {restored['into']}")
    for note in restored["remarks"]:
        out.print(Text.assemble(yellow("note"), f"  {note}"))


def _state(outcome: Outcome) -> str:
    now = outcome.now
    return outcome.state + (f", {now}" if now and now != outcome.state else "")


def _counts(outcome: Outcome) -> str:
    rows, quarantined = sum(t.rows for t in outcome.targets), sum(t.quarantined for t in outcome.targets)
    failed = ", ".join(str(b) for t in outcome.targets for b in t.failed_batches)
    return (
        counted(rows, "row")
        + (f", {quarantined:,} quarantined" if quarantined else "")
        + (f", failed batches: {failed}" if failed else "")
    )


def _times(outcome: Outcome) -> str:
    return (
        f"started {_moment(outcome.started)}, changed {_moment(outcome.changed)}, {duration(outcome.seconds)} of work"
    )


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _next_minute(moment: datetime) -> datetime:
    """Rounded up: what is said to work from then on must work then."""
    return moment + timedelta(seconds=60, microseconds=-1)


def _steps(outcome: Outcome) -> list[str]:
    if outcome.next:
        return [f"next    {outcome.next}"]
    if later := outcome.later:
        since = f"from {_moment(_next_minute(later.since))} on" if later.since else "once that has ended"
        return [f"later   {later.command}", f"        {since}"]
    return []


def _print_shapes(outcome: Outcome) -> None:
    for target in outcome.targets:
        if target.shape:
            out.print(target.shape)


def _print_tail(outcome: Outcome) -> None:
    for name, path in (("report", outcome.report), ("log", outcome.log)):
        if path:
            out.print(f"{name:<8}{path}")
    for line in _steps(outcome):
        out.print(line)
