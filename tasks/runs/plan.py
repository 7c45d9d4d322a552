"""What a run is going to do, fixed before it starts. A run's plan is stored with it and never changes."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from tasks.base import stored
from tasks.contents import registry as contents
from tasks.contents.interface import Content
from tasks.contents.text import Text
from tasks.runs import plan_versions
from tasks.stores import place
from tasks.stores.interface import Collection
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

    own: dict[str, Any] = field(default_factory=dict)
    """The flow's own parameters, as JSON by the names of its form; what plans the flow reads them."""

    def by_name(self) -> dict[str, Any]:
        """Every parameter that the plan keeps, by its name."""
        return {name: value for name, value in vars(self).items() if name != "own"} | self.own


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

    @cached_property
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
    return Plan(
        data["run_id"],
        stored.read(Request, data["request"]),
        tuple(map(_target, data["targets"])),
        data.get("flow_run"),
        data.get("home"),
    )


def _target(data: dict[str, Any]) -> Target[Any]:
    collection = stored.read(Collection, data["collection"])
    content = contents.decode(data.get("content", {"kind": Text.kind}))
    return stored.read(
        Target, {**data, "collection": collection, "place": place.decode(data["place"]), "content": content}
    )


def differences(asked: Request, frozen: Request, given: set[str]) -> list[str]:
    """What ``asked`` wants otherwise than the frozen plan, of the parameters that were ``given``: 'name: was, now'."""
    now, before = asked.by_name(), frozen.by_name()
    return [
        f"{name} is {before.get(name)!r} in the plan, now {value!r}"
        for name, value in now.items()
        if name in given and _without_none(value) != _without_none(before.get(name))
    ]


def _without_none(value: Any) -> Any:
    """The value without what is left at None within it: an earlier version did not know all of that."""
    if isinstance(value, dict):
        return {name: _without_none(one) for name, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list | tuple) else value
