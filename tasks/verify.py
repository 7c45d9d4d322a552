"""Verify: what must hold before the switch, and may be asked again at any later time.

Every row is compared with its source; the new index is held against exact search; both stores get the same queries.
A check that looked at nothing has failed.
"""

import resource
import time
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any
from uuid import UUID

import psutil
from prefect import task
from psycopg import sql

from tasks.base.errors import VerificationRefused
from tasks.base.retrying import RETRYING
from tasks.base.words import agreeing, counted
from tasks.checks import report
from tasks.checks.change_of_model import space_checks
from tasks.checks.measures import Check, Gates
from tasks.checks.searches import cut_short, probe_vectors, sample_check, search_checks
from tasks.runs import artifacts, checkpoints, ledger, run_log, spending
from tasks.runs.artifacts import Tell, quiet
from tasks.runs.checkpoints import Mark
from tasks.runs.plan import Target
from tasks.runs.run import Run, open_run
from tasks.shadows.difference import Difference
from tasks.shadows.registry import shadow_of
from tasks.stores.interface import Source
from tasks.stores.postgres import pace
from tasks.stores.postgres.connection import Connection, refusable
from tasks.stores.postgres.places import SCHEMA
from tasks.stores.postgres.table import Table

SETTLE = 5


@dataclass(frozen=True)
class TargetReport:
    """All that was found out about one target."""

    name: str
    table: str
    rows: int
    checks: list[Check]
    benchmark: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    quarantined: int = 0

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(c.passed for c in self.checks)


@dataclass(frozen=True)
class Verification:
    """What every target has come to, and where the report is."""

    targets: list[TargetReport]
    path: str

    def refuse(self) -> None:
        """Raises VerificationRefused, naming the checks that do not hold and the gates that decide on them."""
        bad = [(t, c) for t in self.targets for c in t.checks if not c.passed]
        if not bad:
            return
        lines = "; ".join(f"{t.table}: {c.name} ({c.found}, wanted {c.wanted})" for t, c in bad)
        gates = sorted({f"gates.{c.gate}" for _, c in bad if c.gate})
        decided = f" Decided by {' and '.join(gates)}: where this is acceptable, set it with -p." if gates else ""
        raise VerificationRefused(f"verification failed: {lines}.{decided} The report: {self.path}")


def verify(run: Run, gates: Gates, passes: list[Difference] | None, tell: Tell = quiet) -> Verification:
    """Checks every target and keeps the report as JSON and HTML under the run.

    ``passes`` is for a run that is being made, the last pass of catching up over each target: one that found nothing has
    compared every row and is not repeated; after any other, rows that moved meanwhile are caught up and compared again.
    Without it every row is compared now, and nothing is written to any table.
    """
    started, cpu = time.perf_counter(), psutil.Process().cpu_times()
    with refusable("verify"):
        reports, ended = [], [started]
        for target in run.plan.targets:
            told = artifacts.part(tell, target.number, len(run.plan.targets))
            reports.append(_target(run, target, gates, passes[target.number] if passes else None, told))
            ended.append(time.perf_counter())
    used = psutil.Process().cpu_times()
    with run.connection() as connection:
        seconds = round(time.perf_counter() - started, 2)
        figures = {
            "seconds": seconds,
            "cpu_seconds": round(used.user + used.system - cpu.user - cpu.system, 2),
            "rested_seconds": round(pace.rested(connection), 2),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "stages": _stages(connection, run),
            "spent": vars(spending.spending(connection, run.run_id)),
        }
        path = report.write(run, [asdict(t) | {"passed": t.passed} for t in reports], figures)
        ledger.set_report(connection, run.run_id, path)
        for target, result, (began, over) in zip(run.plan.targets, reports, pairwise(ended), strict=True):
            detail = {
                "passed": result.passed,
                "failed_checks": [c.name for c in result.checks if not c.passed],
                "quarantined": result.quarantined,
            }
            checkpoints.done(
                connection,
                run.run_id,
                Mark(
                    "verify",
                    target.number,
                    rows=result.rows,
                    seconds=over - began,
                    detail=detail,
                ),
            )
    return Verification(reports, path)


def _target(run: Run, target: Target, gates: Gates, last: Difference | None, tell: Tell) -> TargetReport:
    source, shadow = run.source(), shadow_of(run, target)
    with run.connection() as connection:
        table = shadow.table(connection)
    proven = last and last.compared and not last.touched
    difference = last if last and proven else shadow.compare(artifacts.part(tell, 0, 2))
    notes: list[str] = []
    moved = difference.touched
    for _ in range(SETTLE if last and difference.touched <= len(difference.ids) else 0):
        if not difference.touched:
            break
        touched, were = counted(difference.touched, "row"), agreeing(difference.touched, "were")
        notes.append(f"{touched} changed at the source during the comparison and {were} caught up")
        # The ids are kept: a row that settles is compared once more, with what the source says now.
        shadow.bring(1.0, only=difference.ids)
        again = shadow.compare(only=difference.ids)
        difference = replace(difference, missing=again.missing, stale=again.stale, orphaned=again.orphaned)
    with run.connection() as connection:
        rows, quarantined = _count(connection, table), difference.quarantined.count
        found = _row_checks(
            difference, rows, bool(notes) or table.schema != SCHEMA or bool(target.place.rows), target, gates
        )
        found = _source_count(run, difference, moved) + found
        if difference.foreign:
            notes.append(
                f"{counted(difference.foreign, 'row', 'were')} written or changed by somebody else and left alone"
            )
        if rows == 0 and difference.compared == 0 and source.collection(target.collection.name).count == 0:
            empty = Check("empty", True, 1, "0 rows on both sides", "the same")
            return TargetReport(target.collection.name, target.name, 0, [empty], notes=["a migration of 0 rows"])
        probes = probe_vectors(connection, table)
        if not len(probes):
            notes.append("no record has a vector, so there is nothing to search")
            return TargetReport(target.collection.name, target.name, rows, found, notes=notes, quarantined=quarantined)
        measured, more, benchmark = search_checks(
            run, connection, source, target, table, probes, gates, difference, artifacts.part(tell, 1, 2)
        )
        if line := cut_short(benchmark):
            notes.append(line)
        notes += _other_metric(source, target, more)
        if measured.zero and target.collection.metric == "cosine":
            notes.append(
                f"{counted(measured.zero, 'zero vector')}, which no cosine index finds; the source's did not either"
            )
        if target.place.rows:
            compared = space_checks(run, connection, target, table, gates)
            found, notes = found + compared.checks, notes + compared.notes
            benchmark |= compared.figures
    found += more + sample_check(run, source, target, table, gates, difference)
    return TargetReport(target.collection.name, target.name, rows, found, benchmark, notes, quarantined)


def _other_metric(source: Source, target: Target, found: list[Check]) -> list[str]:
    """Why distances disagree, where it is that a run of an earlier version took a collection's metric for another."""
    name, metric = target.collection.name, target.collection.metric
    if all(c.passed for c in found if c.name == "distances"):
        return []
    shown = source.evidence(name).shown
    if shown in (None, metric):
        return []
    return [f"the distances that {name} gives are {shown}, and this run was planned with {metric}: start a new run"]


def _source_count(run: Run, difference: Difference, moved: int) -> list[Check]:
    """The source's own count against the rows that were compared: a listing may be shorter than the store. Rows that
    were ``moved`` while they were compared, and those between the two counts, may be either way."""
    if difference.counted is None:
        return []
    limit, quarantined = run.plan.request.limit, difference.quarantined.count
    fewest, most = sorted(min(limit or count, count) for count in difference.counted)
    accounted = difference.compared + quarantined
    shown = f"{accounted} compared" + (f", {quarantined} of them quarantined" if quarantined else "")
    passed = min(accounted, difference.listed) >= fewest - moved and (bool(limit) or accounted <= most + moved)
    return [Check("source count", passed, max(most, 1), shown, f"{most}" if fewest == most else f"{fewest} to {most}")]


def _row_checks(difference: Difference, rows: int, moving: bool, target: Target, gates: Gates) -> list[Check]:
    quarantined, missing, orphaned, stale = (
        difference.quarantined.count,
        difference.missing,
        difference.orphaned,
        difference.stale,
    )
    seen = difference.compared + quarantined
    expected = difference.compared - missing.count + orphaned.count + difference.added.count
    # While others write, rows counted now were compared a moment ago; the ids below say which differ.
    rows_check = [] if moving else [Check("rows", rows == expected, seen, f"{rows} in the table", f"{expected}")]
    return [
        *rows_check,
        Check("missing", missing.count == 0, seen, _named(missing), "0"),
        Check("orphaned", orphaned.count == 0, seen + rows, _named(orphaned), "0"),
        Check(
            "content",
            stale.count == 0,
            seen,
            f"{_named(stale)} differ",
            "0",
        ),
        Check(
            "quarantined",
            quarantined <= gates.max_quarantined,
            seen,
            _named(difference.quarantined),
            f"≤ {gates.max_quarantined}",
            gate="max_quarantined",
        ),
    ]


def _named(what: Any) -> str:
    shown = ", ".join(repr(i[:40]) for i in what.ids[:3])
    return f"{what.count}" + (f" ({shown}{', …' if what.count > 3 else ''})" if what.count else "")


def _count(connection: Connection, table: Table) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table.identifier)).fetchone()
    assert row
    return int(row[0])


def _stages(connection: Connection, run: Run) -> dict[str, dict[str, float]]:
    rows = connection.execute(
        "SELECT stage, sum(rows)::bigint, sum(seconds) FROM vecferry.batch WHERE run_id = %s AND status = 'done' "
        "AND stage NOT IN ('verify', 'manifest') GROUP BY stage ORDER BY min(updated_at)",
        (run.run_id,),
    ).fetchall()
    return {
        stage: {"rows": rows_, "seconds": round(s, 3), "rows_per_second": round(rows_ / s) if s and rows_ else 0}
        for stage, rows_, s in rows
    }


@task(name="verify", task_run_name="verify {run_id}", **RETRYING)
def verify_task(
    run_id: str, database: str, gates: Gates, passes: list[Difference] | None, bar: UUID | None
) -> list[TargetReport]:
    """Raises VerificationRefused when a gate does not hold; the report and its artifact are kept all the same."""
    with artifacts.telling(bar) as tell, run_log.stage(run_id, "verify") as entry:
        verification = verify(open_run(run_id, database), gates, passes, tell)
        entry.rows = sum(target.rows for target in verification.targets)
        artifacts.verification(run_id, report.markdown([asdict(t) for t in verification.targets]))
        verification.refuse()
    return verification.targets
