"""Which module plans which flow. A new kind of migration adds a module and its line here."""

from contextlib import nullcontext
from dataclasses import replace

from tasks.base.errors import UsageError
from tasks.planning.account import is_paid, unopened, unpriced
from tasks.planning.in_postgres import InPostgres
from tasks.planning.later import Later
from tasks.planning.planned import Draft, Planned, Planner
from tasks.runs import spending
from tasks.runs.database import Connection, Database
from tasks.runs.plan import Request

PLANNERS: dict[str, Planner] = {
    "chroma-to-pgvector": Later("tasks.planning.collections", InPostgres),
    "text-384-to-1536": Later("tasks.planning.live.tables", InPostgres),
    "clip-to-megadescriptor": Later("tasks.planning.live.images", InPostgres),
    "siglip-to-clip": Later("tasks.planning.qdrant.collections"),
    "multi-model": Later("tasks.planning.models.columns", InPostgres),
}


def planner_of(flow: str) -> Planner:
    """The module that plans the flow. Raises UsageError when there is none."""
    if flow not in PLANNERS:
        raise UsageError(f"no flow is called {flow!r}; available: {', '.join(PLANNERS)}")
    return PLANNERS[flow]


def draft(connection: Connection, request: Request, run_id: str) -> Draft:
    """Targets and problems of a new run, at no cost. ``connection`` leads to the ledger. Raises UsageError when the source or a
    name is not there."""
    drafted = planner_of(request.flow).draft(_lent(connection), request, run_id)
    request = drafted.plan.request  # with the models by their whole names
    opened = [
        m for m in (request.embedder, request.old_embedder) if m and not any(unopened(m))
    ]  # else it is a problem already
    lacking = spending.lacking(connection) if request.embedder in opened and is_paid(request.embedder) else ()
    priceless = unpriced(opened, request.budget_usd)
    return replace(drafted, problems=[*drafted.problems, *lacking, *priceless])


def examined(connection: Connection, request: Request, run_id: str) -> Draft:
    """The same with what takes one pass over the keys: what a run begins with."""
    return planner_of(request.flow).examine(_lent(connection), draft(connection, request, run_id))


def make_plan(connection: Connection, request: Request, run_id: str) -> Planned:
    """The plan of a new run with all that a person wants to know of it."""
    return planner_of(request.flow).estimate(_lent(connection), examined(connection, request, run_id))


def prepare(connection: Connection, request: Request) -> None:
    """Makes what the targets of a new run stand on, where it is missing."""
    planner_of(request.flow).prepare(_lent(connection))


def _lent(connection: Connection) -> Database:
    return Database(lambda: nullcontext(connection))
