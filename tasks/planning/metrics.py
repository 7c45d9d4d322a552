"""The metric of each collection, for its plan: the one that its distances show, else the one that is stored, else the one
that the user names. Writes nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from tasks.stores.interface import Collection, Evidence, Metric, Source


@dataclass(frozen=True)
class Settled:
    """Collections with their metrics, and what there is to say about those."""

    collections: list[Collection]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def settle(
    source: Source, collections: list[Collection], metrics: Mapping[str, Metric], embedder: str | None
) -> Settled:
    """Finds the metric of every collection; ``metrics`` are those that the user names, for the vectors of the ``embedder``
    where there is one."""
    settled = Settled([])
    for collection in collections:
        evidence, named = source.records(collection.name).evidence(), metrics.get(collection.name)
        metric = named if embedder and named else evidence.shown or named or collection.metric
        settled.collections.append(replace(collection, metric=metric))
        if not (embedder and named):
            settled.problems.extend(_problems(collection, evidence, named))
            settled.warnings.extend(_warnings(collection, evidence, named))
    return settled


def option(parameter: str, key: str, value: str) -> str:
    """The argument that sets one key of a parameter that is a mapping."""
    plain = key.replace("-", "").replace("_", "").isalnum()
    return f"-p {parameter}.{key}={value}" if plain else f"-p '{parameter}={{\"{key}\": {value}}}'"


def _problems(collection: Collection, evidence: Evidence, named: str | None) -> Iterator[str]:
    name = collection.name
    if evidence.shown:
        if named and named != evidence.shown:
            yield f"metrics.{name} is {named}, but {name} returns {evidence.shown} distances: leave it out"
        return
    if named:
        return
    if evidence.distances:
        yield (
            f"{name}: none of cosine, l2 and ip alone explains the distances it returns, and "
            f"{_stored(evidence)}; name its metric: {option('metrics', name, collection.metric)}"
        )
    elif len(set(evidence.says.values())) > 1:
        yield (
            f"{name} has no vectors that show its metric, and {_stored(evidence)}; "
            f"name it: {option('metrics', name, collection.metric)}"
        )


def _warnings(collection: Collection, evidence: Evidence, named: str | None) -> Iterator[str]:
    if evidence.shown and evidence.shown != collection.metric:
        yield (
            f"{collection.name}: {_stored(evidence)}, but it returns {evidence.shown} distances, so "
            f"{evidence.shown} is used"
        )
    elif named and not evidence.shown:
        yield f"{collection.name}: {named}, as `metrics` says; the collection itself does not tell"


def _stored(evidence: Evidence) -> str:
    return " and ".join(f"{place} says {metric}" for place, metric in evidence.says.items()) or "nothing states it"
