"""What a run is going to do, fixed before it starts. A run's plan is stored with it and never changes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

from tasks.base import stored
from tasks.contents import registry as contents
from tasks.contents.interface import Content
from tasks.contents.text import Text
from tasks.runs import plan_versions
from tasks.stores import place
from tasks.stores.interface import Collection, Metric
from tasks.stores.place import Place

CARRIED = "carried"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for, as a plan is made from it. Secrets are names."""

    flow: str
    source: dict[str, Any]
    """{"store": name, **options} for tasks.stores.registry."""
    database: str
    embedder: str | None
    """None: the vectors are carried."""
    batch_rows: int
    limit: int | None
    rollback_days: float
    """Days after the cutover in which ``contract`` refuses, unless it is told otherwise."""
    old_embedder: str | None = None
    """Model of the vectors that are there, where it is named: they are checked, and kept current after the switch."""
    similarity_threshold: float | None = None
    """What the application asks of a hit by the old vectors, to be translated."""
    queries: str | None = None
    """A file of labelled queries."""
    budget_usd: float | None = None
    """Dollars that the run may spend; None: as many as it takes."""

    def places(self) -> Sequence[tuple[str, str]]:
        """The places that one run has to itself: a table, as it was named, and its column."""
        return ()


@dataclass(frozen=True, kw_only=True)
class CollectionsRequest(Request):
    """Collections of a store become tables."""

    collections: tuple[str, ...] | None
    """None: all of them."""
    schema: str
    tables: dict[str, str]
    """Collection → table name, where the default is not wanted."""
    halfvec: bool
    nul: Literal["quarantine", "escape"] = "quarantine"
    metrics: dict[str, Metric] = field(default_factory=dict)
    """Collection → metric, where the source does not tell."""


@dataclass(frozen=True)
class Asked:
    """One live table, as the user named it; what is None is read from the catalogue."""

    table: str
    id: tuple[str, ...] | None
    text: str | None
    """A template of columns in braces: ``{title}: {body}``."""
    old_column: str
    new_column: str
    function: str | None
    limit: int | None


@dataclass(frozen=True, kw_only=True)
class ColumnsRequest(Request):
    """Live tables get vectors of another space beside the old ones."""

    targets: tuple[Asked, ...]
    layout: Literal["column", "side_table"]

    def places(self) -> Sequence[tuple[str, str]]:
        return [(asked.table, asked.new_column) for asked in self.targets]


P = TypeVar("P", bound=Place, covariant=True)


@dataclass(frozen=True)
class Target(Generic[P]):
    """One collection and where its vectors come to lie."""

    number: int
    collection: Collection
    place: P
    dimensions: int | None
    space: str
    """Fingerprint of what makes its vectors comparable."""
    old_space: str | None = None
    """Of the vectors that people search by now, where they lie at the same place and their model is named."""
    limit: int | None = None
    """Rows at most, of a smoke run; None: all."""
    content: Content = field(default_factory=Text)
    """What of a record the model is given."""

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def carried(self) -> bool:
        """Whether the vectors are the source's own."""
        return "/" not in self.space  # the fingerprint of every model's has its provider before a slash

    @property
    def rows(self) -> int:
        """How many are migrated, by the source's count at the plan."""
        return min(self.collection.count, self.limit or self.collection.count)


@dataclass(frozen=True)
class Plan:
    """The frozen plan of one run."""

    run_id: str
    request: Request
    targets: tuple[Target[Any], ...]
    flow_run: str | None = None
    """The id of the flow run that began it; None for one of 0.1.0."""
    home: str | None = None
    """The name of the VECFERRY_HOME that it was begun with; None for one of an earlier version."""

    @property
    def limited(self) -> bool:
        """Whether this is a smoke run, which never cuts over."""
        return any(target.limit for target in self.targets)

    @property
    def followed(self) -> bool:
        """Whether the run brings what changes at its source after the switch; else a later run does."""
        return all(target.place.followed for target in self.targets)

    @property
    def page_bytes(self) -> int:
        """Of the new vectors of a batch."""
        return self.request.batch_rows * 4 * max((t.dimensions or 0 for t in self.targets), default=0)

    def as_json(self) -> dict[str, Any]:
        targets = [
            {**asdict(t), "place": place.encode(t.place), "content": contents.encode(t.content)} for t in self.targets
        ]
        return {"version": plan_versions.latest(), **asdict(self), "targets": targets}


def from_json(data: dict[str, Any]) -> Plan:
    """The plan that ``as_json`` wrote, by whichever version of this program. Raises UsageError when a later one did."""
    data = plan_versions.upgraded(data)
    request = data["request"]
    read_request = _columns_request if "layout" in request else _collections_request
    return Plan(
        data["run_id"],
        read_request(request),
        tuple(map(_target, data["targets"])),
        data.get("flow_run"),
        data.get("home"),
    )


def _collections_request(data: dict[str, Any]) -> Request:
    return stored.read(CollectionsRequest, data)


def _columns_request(data: dict[str, Any]) -> Request:
    return stored.read(ColumnsRequest, {**data, "targets": [stored.read(Asked, asked) for asked in data["targets"]]})


def _target(data: dict[str, Any]) -> Target[Any]:
    collection = stored.read(Collection, data["collection"])
    content = contents.decode(data.get("content", {"kind": Text.kind}))
    return stored.read(
        Target, {**data, "collection": collection, "place": place.decode(data["place"]), "content": content}
    )


def differences(asked: Request, frozen: Request, given: set[str]) -> list[str]:
    """What ``asked`` wants otherwise than the frozen plan, of the parameters that were ``given``: 'name: was, now'."""
    return [
        f"{name} is {getattr(frozen, name)!r} in the plan, now {getattr(asked, name)!r}"
        for name in asdict(asked)
        if name in given and getattr(asked, name) != getattr(frozen, name)
    ]
