"""What the test server keeps in its folder: collections, each a segment engine and its configuration, and aliases.

    collections/NAME/config.json   the configuration and the payload indexes, as Qdrant answers them
    collections/NAME/shard/        the engine's own files
    aliases.json
    snapshots/NAME/…

A collection is there once its config.json is. Every file is replaced whole, so that a kill leaves the one or the other.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import orjson
import qdrant_edge as edge

from tests.helpers.qdrant_config import dense_vectors
from tests.helpers.qdrant_engine import JSON, Refused, edge_config, index_schema, refusal


class Collection:
    """One collection. ``config`` is as Qdrant answers it; ``indexes`` are payload indexes by field, as they were asked for."""

    def __init__(self, name: str, folder: Path, config: JSON, indexes: dict[str, Any], shard: edge.EdgeShard) -> None:
        self.name, self.folder, self.config, self.indexes, self.shard = name, folder, config, indexes, shard
        self.operations = 0
        self.optimized = 0.0
        """When the optimizers will be done, by the event loop's clock."""
        self.indexed = 0
        """Points that optimizers have put into an index."""
        self.deferred: set[Any] = set()
        """Ids of points that are not read before an optimizer has run."""

    def names(self) -> set[str]:
        """Names of its vectors, dense and sparse; the unnamed one is ``""``."""
        return {*dense_vectors(self.config["params"]), *(self.config["params"].get("sparse_vectors") or {})}

    def update(self, operation: edge.UpdateOperation) -> int:
        """Applies it. Returns its number. Raises Refused."""
        with answered():
            self.shard.update(operation)
        self.operations += 1
        return self.operations

    def save(self, config: JSON | None = None, indexes: dict[str, Any] | None = None) -> None:
        self.config = self.config if config is None else config
        self.indexes = self.indexes if indexes is None else indexes
        write(self.folder / "config.json", {"config": self.config, "indexes": self.indexes})

    def points(self) -> int:
        return int(self.shard.info().points_count)


class Storage:
    """Everything in one folder, opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.collections: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}
        (folder / "collections").mkdir(parents=True, exist_ok=True)
        if (folder / "aliases.json").exists():
            self.aliases = orjson.loads((folder / "aliases.json").read_bytes())
        for one in sorted((folder / "collections").iterdir()):
            if (one / "config.json").exists():
                self.collections[unquote(one.name)] = opened(unquote(one.name), one)
            else:  # half made, or half deleted
                shutil.rmtree(one)

    def collection(self, name: str) -> Collection:
        """By its name or an alias, which goes before. Raises Refused."""
        name = self.aliases.get(name, name)
        if name not in self.collections:
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
        return self.collections[name]

    def create(self, name: str, config: JSON) -> None:
        folder = self.folder / "collections" / quote(name, safe="")
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "shard").mkdir(parents=True)
        with answered():
            shard = edge.EdgeShard.create(str(folder / "shard"), edge_config(config))
        collection = Collection(name, folder, config, {}, shard)
        collection.save()
        self.collections[name] = collection

    def delete(self, name: str) -> bool:
        """Deletes a collection and its aliases. False where there is none of that name."""
        self.save_aliases({alias: target for alias, target in self.aliases.items() if target != name})
        collection = self.collections.pop(name, None)
        if collection is None:
            return False
        (collection.folder / "config.json").unlink()
        collection.shard.close()
        shutil.rmtree(collection.folder)
        return True

    def save_aliases(self, aliases: dict[str, str]) -> None:
        if aliases != self.aliases:
            self.aliases = aliases
            write(self.folder / "aliases.json", aliases)

    def close(self) -> None:
        for collection in self.collections.values():
            collection.shard.close()


def opened(name: str, folder: Path) -> Collection:
    """A collection from its folder. Where a kill came between the engine and config.json, config.json is right."""
    kept = orjson.loads((folder / "config.json").read_bytes())
    config, indexes = kept["config"], kept["indexes"]
    there = orjson.loads((folder / "shard" / "edge_config.json").read_bytes())
    shard = edge.EdgeShard.load(str(folder / "shard"))
    collection = Collection(name, folder, config, indexes, shard)
    for vector in {*there["vectors"], *there["sparse_vectors"]} - collection.names():
        shard.update(edge.UpdateOperation.delete_vector_name(vector))
    for field in shard.info().payload_schema.keys() - indexes.keys():
        shard.update(edge.UpdateOperation.delete_field_index(field))
    for field in indexes.keys() - shard.info().payload_schema.keys():
        shard.update(edge.UpdateOperation.create_field_index(field, index_schema(indexes[field])))
    return collection


@contextmanager
def answered() -> Iterator[None]:
    """An error of the engine becomes the answer that Qdrant gives for it."""
    try:
        yield
    except Refused:
        raise
    except NotImplementedError as error:
        raise Refused(501, f"This test server does not know {error}") from error
    except Exception as error:
        raise refusal(error) from error


def write(path: Path, value: Any) -> None:
    """Replaces a file whole. Nothing here is to survive the machine."""
    beside = path.with_suffix(".new")
    beside.write_bytes(orjson.dumps(value))
    beside.replace(path)
