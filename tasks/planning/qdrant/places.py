"""Where the new vectors of a Qdrant collection come to lie: chosen by the server, by the shape of the collection and by what was
asked; and what is in the way there. Writes nothing."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.base.words import counted
from tasks.stores.qdrant import configuration
from tasks.stores.qdrant.client import Qdrant
from tasks.stores.qdrant.places import NamedVector, NewCollection, ReplacedCollection
from tasks.stores.qdrant.shapes import UNNAMED, Shape

Strategy = Literal["named_vector", "alias", "replace"]


@dataclass(frozen=True)
class Asked:
    """The flow's own parameters; what is None is chosen."""

    collection: str
    strategy: Strategy | None
    old_vector: str | None
    vector_name: str | None
    new_collection: str | None
    alias: str | None
    content: Literal["image", "text"]
    images: Mapping[str, Any]
    """Options of the content."""


@dataclass(frozen=True)
class Setting:
    """What a place is chosen by."""

    asked: Asked
    qdrant: Qdrant
    names: Collection[str]
    """Of all collections."""
    aliases: Mapping[str, str]
    collection: str
    """The collection itself, never an alias."""
    settings: Mapping[str, Any]
    """Its configuration."""
    vectors: Mapping[str, Shape]
    old: Shape
    dimensions: int
    where: Mapping[str, Any]
    """url, path and the name of the API key."""
    model: str

    @property
    def common(self) -> dict[str, Any]:
        """What every place has."""
        return {
            **self.where,
            "collection": self.collection,
            "vector": self.old.name,
            "dimensions": self.dimensions,
            "distance": self.old.distance,
            "others": tuple(name for name in sorted(self.vectors) if name != self.old.name),
        }

    @property
    def by_alias(self) -> str | None:
        """The alias that was asked for in place of its collection."""
        return self.asked.collection if self.asked.collection != self.collection else None


@dataclass(frozen=True)
class Chosen:
    """A place, and what there is to say about it."""

    place: NamedVector | NewCollection | ReplacedCollection
    problems: list[str] = field(default_factory=list)
    """Each would stop the run."""
    warnings: list[str] = field(default_factory=list)


def choose(setting: Setting) -> Chosen:
    """The place of the strategy that was asked for, or that suits the collection."""
    strategy = setting.asked.strategy
    if strategy is None:
        adds = UNNAMED not in setting.vectors and setting.qdrant.server.adds_vector_names
        strategy = "named_vector" if adds else "alias"
    return {"named_vector": _named_vector, "alias": _new_collection, "replace": _replaced_collection}[strategy](setting)


def _named_vector(setting: Setting) -> Chosen:
    name, server = setting.asked.vector_name or slug(setting.model), setting.qdrant.server
    problems, warnings = [], []
    if not server.adds_vector_names:
        problems.append(
            f"Qdrant {server.version} cannot add a vector to collection {setting.collection}, as 1.18 or newer can: use a new "
            "collection, -p strategy=alias"
        )
    if name in setting.vectors:
        problems.append(
            f"collection {setting.collection} has a vector {name!r} already: choose another name, -p vector_name=NAME"
        )
    if UNNAMED in setting.vectors:
        if not server.adds_beside_unnamed and server.local:
            problems.append(
                f"the local mode of qdrant-client cannot keep a named vector beside the unnamed one of {setting.collection}: use a "
                "new collection, -p strategy=alias, or a server"
            )
        warnings.append(
            f"{setting.collection} has an unnamed vector: with {name!r} beside it, what the server answers as `config.params.vectors` "
            f'becomes {{"": …, "{name}": …}}, which breaks code that reads `.vectors.size`; and whoever upserts a whole point drops '
            "its new vector, until `vecferry catch-up RUN` makes it again. `-p strategy=alias` changes neither"
        )
    return Chosen(NamedVector(**setting.common, new_vector=name), problems, warnings)


def _new_collection(setting: Setting) -> Chosen:
    name, by_alias = _new_name(setting), setting.by_alias
    alias = setting.asked.alias or by_alias or f"{name}_current"
    problems, warnings = [*_copied(setting, name), *_alias_problems(setting, alias, name)], []
    if by_alias is None:
        old, new = counted(setting.old.size or 0, "dimension"), counted(setting.dimensions, "dimension")
        warnings.append(
            f"{setting.collection} keeps its vectors of {old} under its own name, and the new ones are searched under the alias {alias}; "
            f"only `replace` gives vectors of {new} the name {setting.collection}. Either one, with the parameters of this plan: "
            "vecferry run siglip-to-clip -p strategy=alias; vecferry run siglip-to-clip -p strategy=replace"
        )
    place = NewCollection(
        **setting.common,
        new_vector=_kept_name(setting),
        new_collection=name,
        alias=alias,
        alias_was=setting.aliases.get(alias),
    )
    return Chosen(place, problems, warnings)


def _replaced_collection(setting: Setting) -> Chosen:
    name, old = _new_name(setting), setting.collection
    copy = f"{old}_before_{setting.dimensions}"
    problems = [*_copied(setting, name), *_taken(setting, copy)]
    if setting.by_alias:
        problems.append(
            f"{setting.by_alias} is an alias of {old}, which moves to a new collection in one step: leave strategy out, or replace "
            f"the collection itself, -p collection={old}"
        )
    if setting.asked.alias:
        problems.append(f"strategy=replace gives the new collection the name {old}, so it takes no alias: leave it out")
    warnings = [
        f"the points of {old} are copied to {copy}; at the cutover the copy is compared with it, {old} is deleted, and its name becomes an "
        f"alias of {name}. Between these two requests, a moment, {old} is not there, and whoever asks for it gets a 404. Qdrant cannot "
        f"lock writes, so pause whatever writes to {old} during `vecferry cutover RUN`"
    ]
    place = ReplacedCollection(**setting.common, new_vector=_kept_name(setting), new_collection=name, copy=copy)
    return Chosen(place, problems, warnings)


def _kept_name(setting: Setting) -> str:
    """In a collection of their own the new vectors go by the name of the old ones, so that searches need no other."""
    return setting.old.name if setting.asked.vector_name is None else setting.asked.vector_name


def _new_name(setting: Setting) -> str:
    """``image_chunks_768``; named after the model where that is the old one's name, and the sizes are equal."""
    if setting.asked.new_collection:
        return setting.asked.new_collection
    stem = setting.collection.removesuffix(f"_{setting.old.size}")
    name = f"{stem}_{setting.dimensions}"
    return name if name != setting.collection else f"{stem}_{slug(setting.model)}"


def _copied(setting: Setting, name: str) -> Iterator[str]:
    """What is in the way of a collection like the old one."""
    yield from (f"collection {setting.collection}: {reason}" for reason in configuration.problems(setting.settings))
    yield from _taken(setting, name)


def _taken(setting: Setting, name: str) -> Iterator[str]:
    """What has the name of a collection that is to be made."""
    if name in setting.aliases:
        yield f"{name} is an alias of {setting.aliases[name]}: choose another name, -p new_collection=NAME"
    elif name in setting.names:
        run = configuration.owner(configuration.read(setting.qdrant, name))
        whose = f"belongs to run {run} (vecferry status {run})" if run else "is not vecferry's"
        yield f"collection {name} exists and {whose}: choose another name, -p new_collection=NAME"


def _alias_problems(setting: Setting, alias: str, name: str) -> Iterator[str]:
    current = setting.aliases.get(alias)
    if alias in setting.names or alias == name:
        yield f"{alias} is the name of a collection, so it cannot be an alias: choose another, -p alias=NAME"
    elif current is not None and current != setting.collection:
        yield f"alias {alias} points to {current}, and not to {setting.collection}: choose another, -p alias=NAME"


def slug(model: str) -> str:
    """``sentence-transformers/clip-ViT-L-14?device=cpu`` is ``clip_vit_l_14``, and ``hashing/48`` ``hashing_48``."""
    provider, _, name = model.partition("?")[0].partition("@")[0].rstrip("/").partition("/")
    last = name.rpartition("/")[2]
    return re.sub(r"[^a-z0-9]+", "_", (f"{provider}_{last}" if last.isdigit() else last).lower()).strip("_") or "new"
