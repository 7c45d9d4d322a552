"""Verify: what must hold before the switch, and may be asked again at any later time.

Every row is compared with its source; the new index is held against exact search; both stores get the same queries.
A check that looked at nothing has failed.
"""

import resource
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any
from uuid import UUID

import psutil
from prefect import task

from tasks.base.errors import VerificationRefused
from tasks.base.progress import Tell, part, quiet
from tasks.base.retrying import RETRYING
from tasks.base.words import agreeing, counted, listed
from tasks.checks import report
from tasks.checks.change_of_model import space_checks
from tasks.checks.contact_sheet import contact_sheet
from tasks.checks.coverage import coverage_checks
from tasks.checks.gates import Gates
from tasks.checks.itself import itself_checks
from tasks.checks.measures import Check
from tasks.checks.queries import query_checks
from tasks.checks.report import TargetReport, Work
from tasks.checks.rows import count_checks, queue_checks, row_checks
from tasks.checks.sample import sample_check
from tasks.checks.searches import cut_short, probe_vectors, search_checks
from tasks.runs import artifacts, checkpoints, figures, ledger, quarantine, run_log, spending
from tasks.runs.checkpoints import Done
from tasks.runs.commands import command
from tasks.runs.details import Verified
from tasks.runs.plan import Target
from tasks.runs.run import Run, open_run
from tasks.runs.waiting import waiting
from tasks.shadows.difference import Difference
from tasks.shadows.interface import Shadow
from tasks.shadows.registry import shadow_of

SETTLE = 5


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
        lines = "; ".join(f"{t.table}: {c.name} ({c.result}, required {c.wanted})" for t, c in bad)
        gates = sorted({f"gates.{c.gate}" for _, c in bad if c.gate})
        decided = f" If that is acceptable, set {listed(gates)} with -p." if gates else ""
        decided += "".join(f" {line}." for t, c in bad if c.gate == "max_quarantined" for line in t.set_aside)
        raise VerificationRefused(f"verification failed: {lines}.{decided} Report: {self.path}")


def verify(run: Run, gates: Gates, passes: list[Difference] | None, tell: Tell = quiet) -> Verification:
    """Checks every target and keeps the report as JSON and HTML under the run.

    ``passes`` is for a run that is being made, the last pass of catching up over each target: one that found nothing has
    compared every row and is not repeated; after any other, rows that moved meanwhile are caught up and compared again.
    Without it every row is compared now, and nothing is written to any table.
    """
    started, cpu = time.perf_counter(), psutil.Process().cpu_times()
    with run.refusable("verify"):
        reports, ended = [], [started]
        for target in run.plan.targets:
            told = part(tell, target.number, len(run.plan.targets))
            reports.append(_target(run, target, gates, passes[target.number] if passes else None, told))
            ended.append(time.perf_counter())
    used = psutil.Process().cpu_times()
    with run.connection() as connection:
        seconds = round(time.perf_counter() - started, 2)
        spending.purse(run).note(connection)
        work = Work(
            seconds=seconds,
            cpu_seconds=round(used.user + used.system - cpu.user - cpu.system, 2),
            rested_seconds=round(run.rested(), 2),
            peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            stages=figures.stages(run),
            spent=spending.spending(connection, run.run_id),
        )
        path = report.write(run, reports, work)
        ledger.set_report(connection, run.run_id, path)
        for target, result, (began, over) in zip(run.plan.targets, reports, pairwise(ended), strict=True):
            failed = tuple(c.name for c in result.checks if not c.passed)
            detail = Verified(result.passed, failed, result.quarantined, result.threshold)
            checkpoints.done(
                connection,
                run.run_id,
                Done("verify", target.number, rows=result.rows, seconds=over - began, detail=detail),
            )
    return Verification(reports, path)


def _target(run: Run, target: Target[Any], gates: Gates, last: Difference | None, tell: Tell) -> TargetReport:
    shadow, name = shadow_of(run, target), target.collection.name
    notes, settled = shadow.notes(), list[str]()
    proven = last and last.compared and not last.touched
    difference = last if last and proven else shadow.compare(part(tell, 0, 2))
    moved = difference.touched
    if last and moved <= len(difference.ids):
        difference = _settled(shadow, difference, settled)
    moving = bool(settled) or shadow.in_use()
    queued = queue_checks(shadow.stuck(), difference) if last else []
    bad = difference.quarantined
    set_aside = quarantine.reasons(run, target.number, bad.ids, bad.count)
    notes += [*settled, *_waiting(run, target), *set_aside]
    if difference.foreign:
        notes.append(f"{counted(difference.foreign, 'row', 'were')} written or changed by somebody else and left alone")
    with shadow.made() as made, shadow.old() or nullcontext() as old:
        rows, quarantined = made.count(), difference.quarantined.count
        checks = [
            *count_checks(difference, run.plan.request.limit, moved),
            *row_checks(difference, rows, moving, gates),
            *coverage_checks(shadow.coverage()),
            *queued,
        ]
        if rows == 0 and difference.compared == 0 and run.records(target).count() == 0:
            empty = Check("empty", True, 1, "0 rows on both sides", "the same")
            return TargetReport(name, target.name, 0, [empty], notes=["a migration of 0 rows"])
        probes = probe_vectors(made)
        if not len(probes):
            notes.append("no record has a vector, so there is nothing to search")
            return TargetReport(
                name, target.name, rows, checks, notes=notes, quarantined=quarantined, set_aside=set_aside
            )
        searched = search_checks(run, target, made, probes, gates, difference, part(tell, 1, 2))
        benchmark, sheet = searched.benchmark, None
        notes += [*cut_short(benchmark), *_other_metric(run, target, searched.checks)]
        if searched.norms.zero and made.metric == "cosine":
            zeros = counted(searched.norms.zero, "zero vector")
            notes.append(f"{zeros}, which a cosine index never returns; nor did the source's")
        notes += _model(run, target)
        if old:
            compared = space_checks(run, target, old, made, gates)
            checks, notes = checks + compared.checks, notes + compared.notes
            benchmark = replace(benchmark, change=compared.change)
            sheet = contact_sheet(target.content, old, made)
        answered = query_checks(run, target, made, gates)
        notes, benchmark = notes + answered.notes, replace(benchmark, answers=answered.answers)
        checks += [*searched.checks, sample_check(run, target, made, gates, difference)]
        checks += [*answered.checks, *itself_checks(run, target, made, gates)]
    return TargetReport(name, target.name, rows, checks, benchmark, notes, quarantined, set_aside, sheet)


def _model(run: Run, target: Target[Any]) -> list[str]:
    """How the model was asked, and what its publisher allows, where there is something to be said of either."""
    if target.carried:
        return []
    embedder = spending.embedder_of(run)
    facts = [embedder.space.preprocessing, f"licence of its weights: {embedder.licence}" if embedder.licence else ""]
    told = "; ".join(fact for fact in facts if fact)
    return [f"the new vectors are those of {run.plan.request.embedder}: {told}"] if told else []


def _waiting(run: Run, target: Target[Any]) -> list[str]:
    """What waits in the target's queue, and is compared with nothing."""
    with run.connection() as connection:
        queued = waiting(connection, target.place)
    catch_up = command("catch-up", run.run_id, run.plan.request.database)
    return [f"{queued}; {catch_up} brings {agreeing(queued.rows, 'them')} in line"] if queued and queued.rows else []


def _settled(shadow: Shadow, difference: Difference, notes: list[str]) -> Difference:
    """What is left of a difference once rows that moved during the comparison are caught up, a few times at most."""
    for _ in range(SETTLE):
        if not difference.touched:
            break
        touched, were = counted(difference.touched, "row"), agreeing(difference.touched, "were")
        notes.append(f"{touched} changed at the source during the comparison and {were} caught up")
        # The ids are kept: a row that settles is compared once more, with what the source says now.
        shadow.follow(1.0, only=difference.ids)
        now = shadow.compare(only=difference.ids)
        difference = replace(difference, missing=now.missing, stale=now.stale, orphaned=now.orphaned)
    return difference


def _other_metric(run: Run, target: Target[Any], checks: list[Check]) -> list[str]:
    """Why distances disagree, where it is that a run of an earlier version took a collection's metric for another."""
    name, metric = target.collection.name, target.collection.metric
    if all(c.passed for c in checks if c.name == "distances"):
        return []
    shown = run.records(target).evidence().shown
    if shown in (None, metric):
        return []
    return [f"{name} returns {shown} distances, but this run was planned with {metric}: start a new run"]


@task(name="verify", task_run_name="verify {run_id}", **RETRYING)
def verify_task(
    run_id: str, database: str, gates: Gates, passes: list[Difference] | None, bar: UUID | None
) -> list[TargetReport]:
    """Raises VerificationRefused when a gate does not hold; the report and its artifact are kept all the same."""
    run = open_run(run_id, database)
    with artifacts.telling(run, bar) as tell, run_log.stage(run_id, "verify") as entry:
        verification = verify(run, gates, passes, tell)
        entry.rows = sum(target.rows for target in verification.targets)
        artifacts.verification(run_id, report.markdown(verification.targets))
        verification.refuse()
    return verification.targets
