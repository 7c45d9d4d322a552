"""What forms have in common: of every flow, of those that take up a run there is, and of every migration."""

import warnings
from abc import abstractmethod
from dataclasses import fields
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from flows.forms.decimals import Number, OptionalNumber
from flows.forms.form import changed
from flows.forms.gates import Gates, GatesOfRun
from tasks.base.settings import DEFAULT_DATABASE, LEDGER_DATABASE
from tasks.runs import ledgers
from tasks.runs.plan import Request

# Prefect builds a model from a flow's signature, and ours has a parameter called schema.
warnings.filterwarnings("ignore", message='Field name "schema" in .* shadows an attribute')

Cutover = Literal["manual", "ask", "auto"]
SHARE = Field(
    0.2, gt=0, le=1, description="share of the time to work in the database while others use it; 1: all of it"
)
LEDGER = Field(
    LEDGER_DATABASE,
    description="name of the environment variable or Secret block that holds the URL of the PostgreSQL with the run's ledger",
)
"""``database`` of a flow whose targets lie in no PostgreSQL."""


class Base(BaseModel):
    """What every flow takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    database: str = Field(
        DEFAULT_DATABASE, description="name of the environment variable or Secret block that holds the PostgreSQL URL"
    )


class OfRun(Base):
    """The form of the flows that take up a run there is."""

    database: str = Field(
        "",
        description="name of the environment variable or Secret block that holds the PostgreSQL URL of the run's ledger "
        "(default: DATABASE_URL or VECFERRY_DATABASE_URL, whichever has the run)",
    )
    run_id: str = Field(description="name of the run")


R = TypeVar("R", bound=OfRun)


def located(parameters: R) -> R:
    """The same with the database whose ledger has the run, where none was named. Raises UsageError where none has it, or two."""
    if parameters.database:
        return parameters
    return parameters.model_copy(update={"database": ledgers.having(parameters.run_id)})


class Gated(Base):
    """What the flows that verify take."""

    gates: Gates | GatesOfRun
    database_share: Number = SHARE


class Checked(OfRun, Gated):
    """The form of cutover and verify."""

    gates: GatesOfRun = Field(
        GatesOfRun(), description="what must hold before the switch (default: the run's own gates)"
    )


class CatchUp(Checked):
    """The form of catch-up."""

    reread: bool = Field(
        False, description="read every row again, to find images that were replaced under the same reference"
    )


class Rollback(OfRun):
    """The form of rollback."""

    force: bool = Field(
        False, description="overwrite what somebody has put in place of a search function since the cutover"
    )


class Contract(OfRun):
    """The form of contract."""

    rollback_days: OptionalNumber = Field(
        None, ge=0, description="days after the cutover before anything old may be dropped (default: the run's own)"
    )


class Restore(OfRun):
    """The form of restore."""

    into: str | None = Field(
        None,
        description="where to write: a new directory (default: RUN-restored), of Qdrant also a server's URL or URL/collections/NAME, "
        "or, of live tables, a column, which has no default",
    )
    format: Literal["chroma", "qdrant", "column", "jsonl"] | None = Field(
        None,
        description="what to write: a Chroma directory, a Qdrant collection, a column of the live tables, or JSON lines "
        "(default: what was read)",
    )
    database_share: Number = SHARE


class Shared(Gated):
    """What every migration takes."""

    gates: Gates = Field(Gates(), description="what must hold before the switch")
    run_id: str | None = Field(None, description="name of the run; an existing run is resumed")
    batch_ids: list[int] | None = Field(None, description="the batches to run again (default: all that are not done)")
    batch_rows: int = Field(
        2_000, ge=1, le=100_000, description="rows per batch, the unit of checkpoint, retry and rerun"
    )
    limit: int | None = Field(
        None, ge=0, description="a smoke run over this many rows, which never cuts over (0: all rows)"
    )
    workers: int = Field(2, ge=1, le=64, description="chunks of batches to work on at once")
    cutover: Cutover = Field(
        "manual", description="after verification: stop (manual), ask for approval (ask), or switch (auto)"
    )
    rollback_days: Number = Field(7, ge=0, description="days after the cutover before anything old may be dropped")
    budget_usd: OptionalNumber = Field(
        None, ge=0, description="dollars that the run may spend; it stops before it would spend more"
    )


class Migration(Shared):
    """What a flow that migrates makes of its form."""

    flow: ClassVar[str]
    """What people call it."""
    stand_for: ClassVar[dict[str, str]] = {}
    """Fields that a run's plan holds under another name, with what they make of it."""
    known_by: ClassVar[tuple[str, ...]] = ()
    """Parameters, by their names in the plan, that tell which run a start without a run_id is about, where its vectors lie in no
    table: the latest with the same values. None: each start is a run of its own."""

    @abstractmethod
    def source(self) -> dict[str, Any]:
        """What is read, for tasks.stores.registry: {"store": name, **options}."""

    def resolved(self) -> dict[str, Any]:
        """Values that mean the same wherever and by whomever they are read: an absolute path, a whole template."""
        return {}

    def places(self) -> list[tuple[str, str]]:
        """The vectors that one run has to itself: a table, as it was named, and its column."""
        return []

    def missing(self) -> str | None:
        """What a new run needs and was not given, in plain words."""
        return None

    def request(self) -> Request:
        """What a plan is made from, and keeps: the form's own values by their names."""
        kept = self.model_dump(by_alias=True, exclude={*OF_A_START, *self.stand_for}) | self.resolved()
        kept["limit"] = self.limit or None
        shared = {field.name for field in fields(Request)} & kept.keys()
        own = {name: value for name, value in kept.items() if name not in shared}
        return Request(flow=self.flow, source=self.source(), own=own, **{name: kept[name] for name in shared})

    def given(self) -> set[str]:
        """The names, in the plan, of what is not left at its default: only that can contradict a frozen plan."""
        names = {name: type(self).model_fields[name].alias or name for name in changed(self)}
        return {self.stand_for.get(name, alias) for name, alias in names.items()}


OF_A_START = {"run_id", "batch_ids", "workers", "cutover", "gates", "database_share"}
"""Fields that say how a run is worked on this time; its plan keeps all the others."""
