"""What the command line prints: results to standard output, complaints to standard error."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.command.fields import Parameter
from tasks.base import files
from tasks.base.words import agreeing, counted
from tasks.checks.report import plain
from tasks.planning.layouts import LayoutCost
from tasks.runs.checkpoints import Batch
from tasks.runs.status import sentence

# Markup is off for good: names, ids and messages are other people's, and may hold square brackets. Text carries styles.
out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

WORDS = {"catch_up": "catch up", "list": "list ids"}
"""What people call a stage, where the ledger calls it otherwise."""
PASSED = (True, "True")
"""What a report calls passed: those of 0.1.0 hold some of NumPy's booleans as words."""


def bold(text: str) -> Text:
    return Text(text, "bold")


def red(text: str) -> Text:
    return Text(text, "red")


def yellow(text: str) -> Text:
    return Text(text, "yellow")


passing: set[str] = set()
"""What stands on the terminal's last line for a while, and is wiped when it has passed."""


@contextmanager
def starting() -> Iterator[None]:
    """On a terminal, a line that says so while the body runs."""
    if not err.is_terminal:
        yield
        return
    with err.status("starting…"):
        passing.add("starting")
        yield
    passing.clear()


def parameters(listed: Iterable[Parameter], as_json: bool) -> None:
    """Two lines a parameter: what it takes, and what for."""
    if as_json:
        _print_json([vars(p) for p in listed])
        return
    for p in listed:
        shown = p.default if isinstance(p.default, str) else json.dumps(p.default)
        default = "; required" if p.required else "" if p.default in (None, {}) else f"; default {shown}"
        out.print(Text.assemble(bold(p.name), f"  {p.type}{default}\n    {p.help}"))


def plan(planned: Any, next_: str | None, as_json: bool) -> None:
    """``next_`` is the command that does what was planned; None where it cannot be done."""
    plan = planned.plan
    if as_json:
        _print_json(
            {
                "flow": plan.request.flow,
                "rows": planned.rows,
                "batches": planned.batches,
                "storage_bytes": planned.storage_bytes,
                "copied_bytes": planned.copied_bytes,
                "seconds": round(planned.seconds),
                "targets": [
                    {
                        "name": t.collection.name,
                        "table": t.name,
                        "mode": t.place.kind,
                        "rows": t.collection.count,
                        "dimensions": t.dimensions,
                        "metric": t.collection.metric,
                        "type": t.place.layout.type,
                        "metadata": look.metadata,
                    }
                    for t, look in zip(plan.targets, planned.looks, strict=True)
                ],
                "sql": planned.sql,
                "cost": planned.cost
                and {**vars(planned.cost), "dollars": planned.cost.dollars, "most_dollars": planned.cost.most_dollars},
                "limits": planned.allowed and {**vars(planned.allowed), "seconds": planned.least_seconds},
                "layouts": [asdict(layout) for layout in planned.layouts],
                "problems": planned.problems,
                "warnings": planned.warnings,
                "next": next_,
            }
        )
        return
    table = Table(box=None, pad_edge=False)
    for column in ("collection", "table", "how", "rows", "dims", "metric", "metadata keys"):
        table.add_column(column, justify="right" if column in ("rows", "dims") else "left", overflow="fold")
    for target, look in zip(plan.targets, planned.looks, strict=True):
        keys = ", ".join(f"{key} ({'/'.join(types)})" for key, types in look.metadata.items())
        c = target.collection
        table.add_row(
            c.name, target.name, target.place.kind, f"{c.count:,}", str(target.dimensions or "–"), c.metric, keys or "–"
        )
    out.print(table)
    cost = f"about {_duration(planned.seconds)} and {planned.storage_bytes / 1e6:,.1f} MB"
    out.print(f"\n{counted(planned.rows, 'row')} in {counted(planned.batches, 'batch')}; {cost}")
    if planned.copied_bytes:
        out.print(
            f"the directory is read from a private copy of {planned.copied_bytes / 1e6:,.1f} MB, removed afterwards; "
            f"the directory itself stays as it is"
        )
    if planned.cost:
        c = planned.cost
        most = "" if c.exact else f", at most {c.most_tokens:,}: ${c.most_dollars:.4f}"
        kept = f"; {c.kept:,} more {agreeing(c.kept, 'are')} kept already" if c.kept else ""
        how = "" if c.exact else "about "
        out.print(
            f"{counted(c.texts, 'different text')} of {how}{counted(c.tokens, 'token')}: {how}${c.dollars:.4f}{most}{kept}"
        )
    if planned.allowed and planned.least_seconds is not None:
        limits = ((planned.allowed.requests, "request"), (planned.allowed.tokens, "token"))
        allowed = " and ".join(counted(round(limit), what) for limit, what in limits if limit)
        out.print(
            f"the account allows {allowed} a minute: at least {_duration(planned.least_seconds)}"
            if allowed
            else "the server tells no limits of the account"
        )
    for layout in planned.layouts:
        out.print(_layout(layout))
    out.print("\nSQL that changes something:")
    for line in planned.sql:
        out.print(f"  {line};" if not line.startswith("--") else f"  {line}")
    for warning in planned.warnings:
        out.print(Text.assemble("\n", yellow("note"), f"  {warning}"))
    for problem in planned.problems:
        out.print(Text.assemble("\n", red("problem"), f"  {problem}"))
    if next_:
        out.print(f"\nnext    {next_}")


def _layout(layout: LayoutCost) -> str:
    """public.docs: layout=column adds 30.2 MB and rewrites 3,000 rows, with their entries in docs_pkey (btree, 0.1 MB)"""
    would = "" if layout.chosen else "would "
    add, leave, rewrite = ("add", "leave", "rewrite") if would else ("adds", "leaves", "rewrites")
    entries = ", ".join(f"{index.name} ({index.method}, {index.bytes / 1e6:,.1f} MB)" for index in layout.indexes)
    what = f"{rewrite} {counted(layout.rows, 'row')}" if layout.layout == "column" else f"{leave} the table as it is"
    into = f", with their entries in {entries}" if entries else ""
    return f"{layout.table}: layout={layout.layout} {would}{add} {layout.bytes / 1e6:,.1f} MB and {what}{into}"


def runs(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    if not found:
        out.print("no runs yet; start with: vecferry plan chroma-to-pgvector -p chroma.path=DIRECTORY")
        return
    for run in found:
        out.print(Text.assemble(bold(run["run_id"]), f"  {_state(run)}  {_counts(run)}"))
        for line in (f"{run['flow']}, {run['source']}", _times(run), *_steps(run)):
            out.print(f"  {line}")


def run(outcome: dict[str, Any], stages: list[dict[str, Any]], failed: list[Batch], as_json: bool) -> None:
    """One run: what it is, its stages, what failed, and what to do."""
    if as_json:
        _print_json(outcome)
        return
    out.print(Text.assemble(f"{outcome['run_id']}: ", bold(_state(outcome))))
    for line in (f"{outcome['flow']}, {outcome['source']}", _times(outcome), outcome["error"]):
        if line:
            out.print(line)
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "done", "pending", "failed", "rows", "quarantined", "seconds"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for line in stages:
        name = WORDS.get(line["stage"], line["stage"])
        table.add_row(name, *(f"{line[c]:,}" for c in ("done", "pending", "failed", "rows", "quarantined", "seconds")))
    out.print(table)
    for batch in failed[:20]:
        attempts = counted(batch.attempts, "attempt")
        out.print(f"batch {batch.number} failed in {batch.stage} after {attempts}: {batch.error}")
    _print_tail(outcome)


def outcome(found: dict[str, Any], as_json: bool, checked: bool = True, moved: bool = True) -> None:
    """What a run has come to; with the verification table where this command made or used it (``checked``), and what it did
    to each target where it ``moved`` rows."""
    if as_json:
        _print_json(found)
        return
    if checked and found["report"]:
        checks(found["report"].removesuffix("html") + "json")
    for t in found["targets"] if moved else []:
        quarantined = ("; ", red(f"{t['quarantined']:,} quarantined")) if t["quarantined"] else ()
        out.print(Text.assemble(sentence(t), *quarantined))
    if spent := found["spent"]:
        saved = (
            f"; {spent['reused']:,} {agreeing(spent['reused'], 'were')} kept, which saved ${spent['saved']:.4f}"
            if spent["reused"]
            else ""
        )
        out.print(
            f"spent ${spent['dollars']:.4f} on {counted(spent['bought'], 'text')}: {counted(spent['tokens'], 'token')} in "
            f"{counted(spent['requests'], 'request')}{saved}"
        )
    out.print(bold(found["state"]))
    _print_tail(found)


def _state(outcome: dict[str, Any]) -> str:
    now = outcome["now"]
    return outcome["state"] + (f", {now}" if now and now != outcome["state"] else "")


def _counts(outcome: dict[str, Any]) -> str:
    rows, quarantined = (sum(t[what] for t in outcome["targets"]) for what in ("rows", "quarantined"))
    failed = ", ".join(str(b) for t in outcome["targets"] for b in t["failed_batches"])
    return (
        counted(rows, "row")
        + (f", {quarantined:,} quarantined" if quarantined else "")
        + (f", failed batches: {failed}" if failed else "")
    )


def _times(outcome: dict[str, Any]) -> str:
    started, changed = (datetime.fromisoformat(outcome[what]) for what in ("started", "changed"))
    return f"started {_moment(started)}, changed {_moment(changed)}, {_duration(outcome['seconds'])} of work"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _next_minute(moment: str) -> datetime:
    """Rounded up: what is said to work from then on must work then."""
    return datetime.fromisoformat(moment) + timedelta(seconds=59)


def _steps(outcome: dict[str, Any]) -> list[str]:
    if outcome["next"]:
        return [f"next    {outcome['next']}"]
    if later := outcome["later"]:
        since = f"from {_moment(_next_minute(later['from']))} on" if later["from"] else "when that has ended"
        return [f"later   {later['command']}", f"        {since}"]
    return []


def checks(path: str) -> None:
    """The verification tables of a report, one a target."""
    data = json.loads(files.read(path))
    for target in data["targets"]:
        title = f"{target['name']} → {target['table']}"
        table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
        for column in ("", "check", "found", "wanted", "looked at"):
            table.add_column(column, justify="right" if column == "looked at" else "left", overflow="fold")
        for check in target["checks"]:
            mark = Text("✓", "green") if check["passed"] in PASSED else red("✗")
            table.add_row(mark, check["name"], check["found"], check["wanted"], f"{check['looked_at']:,}")
        for note in target["notes"]:
            table.add_row("", "note", note, "", "")
        out.print(table)


def done(lines: list[str], as_json: bool) -> None:
    if not as_json:
        for line in lines:
            out.print(line)


def restored(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    for name, rows in found["restored"].items():
        out.print(f"{name}: {counted(rows, 'record')} restored into {found['into']}")
    if found["note"]:
        out.print(Text.assemble(yellow("note"), f"  {found['note']}"))


def complain(problem: object) -> None:
    err.print(Text.assemble(red("vecferry:"), f" {problem}"))


def note(line: str) -> None:
    """Says a line that is no complaint, beside the results."""
    err.print(f"vecferry: {line}")


def explain(error: BaseException) -> int:
    """One line for an error nobody classed; the traceback where VECFERRY_DEBUG asks for it. Returns the exit status."""
    if usage := getattr(error, "format_message", None):  # Click's own complaints about arguments
        complain(usage())
        return 2
    if os.environ.get("VECFERRY_DEBUG"):
        err.print_exception()
    complain(f"{type(error).__name__}: {error} (VECFERRY_DEBUG=1 shows where; `vecferry status` says how to go on)")
    return 1


def _print_tail(outcome: dict[str, Any]) -> None:
    for name in ("report", "log"):
        if outcome[name]:
            out.print(f"{name:<8}{outcome[name]}")
    for line in _steps(outcome):
        out.print(line)


def _print_json(value: Any) -> None:
    print(json.dumps(value, default=plain))


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
