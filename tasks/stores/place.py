"""Where a target's new vectors come to lie, as its plan keeps it: a tagged dataclass, {"kind": "side_table", …} in JSON.

Stages ask a place what holds of it, and never what kind it is. A vendor's own terms, such as the types of its columns, are
fields of the vendor's places.
"""

from dataclasses import asdict
from importlib import import_module
from typing import Any, ClassVar, Protocol

POSTGRES = "tasks.stores.postgres.places"
QDRANT = "tasks.stores.qdrant.places"
KINDS: dict[str, str] = {
    "create": f"{POSTGRES}:NewTable",
    "replace": f"{POSTGRES}:ReplacedTable",
    "sync": f"{POSTGRES}:SyncedTable",
    "column": f"{POSTGRES}:LiveColumn",
    "renamed_column": f"{POSTGRES}:RenamedColumn",
    "side_table": f"{POSTGRES}:SideTable",
    "model_column": f"{POSTGRES}:ModelColumn",
    "named_vector": f"{QDRANT}:NamedVector",
    "new_collection": f"{QDRANT}:NewCollection",
    "replaced_collection": f"{QDRANT}:ReplacedCollection",
}
"""Kind → where its class is. A vendor's module is imported only when a plan names one of its kinds."""


class Place(Protocol):
    """What a stage may know of a place."""

    kind: ClassVar[str]
    store: ClassVar[str]
    """Whose switch it takes part in: the targets of one store are switched together."""
    loads: ClassVar[bool]
    """Whether the snapshot is loaded into it; else it holds rows already, and gets what differs."""
    at_once: ClassVar[bool]
    """Whether people see what is written at once, so that nothing is left to switch."""
    followed: ClassVar[bool]
    """Whether its run brings it in line with the source after the switch."""
    followed_after_contract: ClassVar[bool]

    @property
    def partial(self) -> bool:
        """Whether it gets vectors of some of the rows alone that people search, so that nobody is switched to it by itself."""
        ...

    @property
    def vector_type(self) -> str:
        """What its vectors are stored as."""
        ...

    @property
    def row_bytes(self) -> int:
        """What a row's vector takes where it is searched, beside the row itself."""
        ...

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def label(self) -> str:
        """A short name, for files and for task runs."""
        ...

    def shape(self, rows: int) -> str | None:
        """A line that people are shown of its vectors, and of so many rows, with a run; None where they see that in a table of theirs."""
        ...

    @property
    def queue(self) -> str | None:
        """The table in the ledger's schema that takes note of the rows that change; None where nobody takes note there, as of
        every place outside of the ledger's database."""
        ...

    @property
    def rows(self) -> Any:
        """How the rows of the source are read, where the place lies among them; None where the source is elsewhere."""
        ...


def encode(place: Place) -> dict[str, Any]:
    """The place as JSON."""
    return {"kind": place.kind, **asdict(place)}  # type: ignore[call-overload]


def decode(data: dict[str, Any]) -> Place:
    """The place that ``encode`` wrote. Raises KeyError for a kind that is not known."""
    fields = dict(data)
    module, name = KINDS[fields.pop("kind")].split(":")
    place: Place = getattr(import_module(module), name).from_json(fields)
    return place
