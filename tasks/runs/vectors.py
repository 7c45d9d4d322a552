"""Vectors by content: each is kept under its space and the key of its item before it is loaded anywhere, so that no retry,
rerun or second run makes it again.

    VECFERRY_HOME/vectors/<space>/<segment>.arrow     content: binary[32], embedding: float32[d]

The segments are the store. vecferry.vector is only an index into them, and is rebuilt from them where it lacks one. They
are Arrow files, not Parquet: Parquet has levels to write and to read for every component of a list.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import pyarrow as pa

from tasks.base import files
from tasks.contents.interface import Slice
from tasks.embedders.interface import Embedder, Item, RowError, Space
from tasks.embedders.texts import shortened
from tasks.runs import checkpoints, spending
from tasks.runs.keeper import Keeper
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.runs.spending import Purse
from tasks.stores.interface import vector_column, vectors
from tasks.stores.postgres.connection import Connection


def keys_of(embedder: Embedder, items: Sequence[Item]) -> list[bytes]:
    """What the vector of each item is kept under within the embedder's space: SHA-256 of the item, and of its variant where
    it has one, lest that of a text that was cut be taken for a mean of all its pieces."""
    return keyed(embedder, items)[0]


def keyed(embedder: Embedder, items: Sequence[Item]) -> tuple[list[bytes], dict[bytes, bytes]]:
    """The items' keys; and of those that have a variant, the keys of the same items without it: what is kept under these was
    taken whole, and so serves every variant."""
    pairs = list(zip(items, embedder.variants(items), strict=True))
    keys = [sha256(_named(*pair)).digest() for pair in pairs]
    return keys, {
        key: sha256(_named(item, "")).digest() for key, (item, variant) in zip(keys, pairs, strict=True) if variant
    }


def _named(item: Item, variant: str) -> bytes:
    content = item.encode() if isinstance(item, str) else item
    return b"%s\0%s" % (content, variant.encode()) if variant else content


def embedded(
    run: Run, target: Target, page: pa.Table, tally: bool = False, model: str | None = None
) -> tuple[pa.Table, Mapping[int, RowError]]:
    """The page with the vectors of the target's space: those of its documents, for which it need not
    have a column.

    A record without a document gets no vector. The rows whose document the content or the model refuses are told by their
    index. ``tally`` counts what need not be bought as saved. ``model`` stands in for the run's.
    """
    purse = spending.purse(run)
    embedder = purse.model(model or run.plan.request.embedder)
    documents = page.column("document").to_pylist()
    rows = [row for row, document in enumerate(documents) if document is not None]
    made = _Made(np.zeros((len(documents), embedder.space.dimensions), np.float32), np.zeros(len(documents), bool), {})
    whole: dict[bytes, bytes] = {}

    def keys_in(items: Sequence[Item]) -> list[bytes]:
        keys, without = keyed(embedder, items)
        whole.update(without)
        return keys

    with run.connection() as connection:
        for part in target.content.slices([documents[row] for row in rows], keys_in):
            by_key = defaultdict[bytes, list[int]](list)
            for at, key in zip(part.rows, part.keys, strict=True):
                by_key[key].append(rows[at])
            made.refused.update({rows[at]: error for at, error in part.refused.items()})
            names = {rows[at]: name for at, name in part.names.items()}
            _Filling(purse, connection, embedder, part, by_key, made, whole, names).fill(tally)
    column, at = vector_column(made.vectors, made.present), page.schema.get_field_index("embedding")
    page = page.append_column("embedding", column) if at < 0 else page.set_column(at, "embedding", column)
    return page, made.refused


@dataclass(frozen=True)
class _Made:
    """What has come of a page so far, by row."""

    vectors: np.ndarray
    """float32[n, d]"""
    present: np.ndarray
    """bool[n]"""
    refused: dict[int, RowError]


@dataclass(frozen=True)
class _Filling:
    """One slice of a page, whose vectors come from what is kept and from the model."""

    purse: Purse
    connection: Connection
    embedder: Embedder
    part: Slice
    rows: Mapping[bytes, Sequence[int]]
    """Of the page, for each key of the slice."""
    made: _Made
    whole: Mapping[bytes, bytes]
    """Of keys with a variant, those without."""
    names: Mapping[int, str]
    """What rows' items are called in messages."""

    @property
    def run(self) -> Run:
        return self.purse.run

    def fill(self, tally: bool) -> None:
        with closing(self.purse.claims.in_turn(self.embedder.space.fingerprint, list(self.rows))) as turns:
            for keys in turns:
                missing, made = self._find(keys), 0
                while missing:
                    bought = self._buy(missing)
                    made += len(bought)
                    missing = self._find([key for key in missing if key not in bought])
                if tally and made < len(keys):
                    self.purse.note(self.connection, reused=len(keys) - made)

    def _find(self, keys: list[bytes]) -> list[bytes]:
        """Takes over what is kept, a segment at a time, and returns the keys that are not."""
        missing = self._take_over({key: key for key in keys}, [key for key in keys if key not in self.whole])
        by_whole = {self.whole[key]: key for key in missing if key in self.whole}
        left = set(self._take_over(by_whole, by_whole))
        return [key for key in missing if key in left or key not in self.whole]

    def _take_over(self, kept_as: Mapping[bytes, bytes], whole: Collection[bytes]) -> list[bytes]:
        """The same for keys by what they are kept under, of which those of ``whole`` stand for whole items."""
        if not kept_as:
            return []
        missing = dict.fromkeys(kept_as.values())
        space = self.embedder.space
        for names, rows in kept(self.run, self.connection, space, list(kept_as), set(whole)):
            keys = [kept_as[name] for name in names]
            self._place(keys, rows)
            for key in keys:
                missing.pop(key, None)
        return list(missing)

    def _buy(self, keys: list[bytes]) -> set[bytes]:
        """Makes the vectors that no other process makes; returns which. Those of the others are waited for a moment."""
        if self.embedder.account is None:
            self._make(keys)
            return set(keys)
        with spending.claimed(self.connection, self.embedder.space, keys, self.run.recovered) as claimed:
            if claimed:
                self._make(claimed)
        if not claimed:
            checkpoints.check_stop(self.connection, self.run.run_id)
            time.sleep(spending.POLL)
        return set(claimed)

    def _make(self, keys: list[bytes]) -> None:
        place = dict(zip(self.part.keys, range(len(self.part.keys)), strict=True))
        opened = list(self.part.open([place[key] for key in keys]))
        items = {key: item for key, item in zip(keys, opened, strict=True) if not isinstance(item, RowError)}
        names = list(items)

        def take(positions: Sequence[int], made: np.ndarray) -> None:
            keys = [names[at] for at in positions]
            keep(self.run, self.connection, self.embedder.space, keys, made)
            self.purse.note(self.connection, bought=len(keys))
            self._place(keys, made)

        with self.purse.buying():
            rejected = self.embedder.embed(list(items.values()), take).rejected if items else {}
        unopened = {key: item for key, item in zip(keys, opened, strict=True) if isinstance(item, RowError)}
        for key, error in unopened.items():
            self.made.refused.update(dict.fromkeys(self.rows[key], error))
        for at, error in rejected.items():
            self.made.refused.update({row: self._named(row, error) for row in self.rows[names[at]]})

    def _named(self, row: int, error: RowError) -> RowError:
        """What a model has against an item, of which it knows no name."""
        name = self.names.get(row)
        return error if name is None else RowError(error.kind, f"{name}: {error.message}")

    def _place(self, keys: Sequence[bytes], made: np.ndarray) -> None:
        at = [row for key in keys for row in self.rows[key]]
        whole = len(at) == len(keys)
        self.made.vectors[at] = made if whole else np.repeat(made, [len(self.rows[key]) for key in keys], axis=0)
        self.made.present[at] = True


def kept(
    keeper: Keeper, connection: Connection, space: Space, keys: list[bytes], whole: Collection[bytes]
) -> Iterator[tuple[list[bytes], np.ndarray]]:
    """Those of the keys that are kept, with their vectors, float32[n, d], a segment at a time. Those of ``whole``, keys of items
    that were taken whole, are cut from longer vectors of the same model where there are none of their own."""
    there = yield from _taken(keeper, connection, space, keys)
    if space.longer and (missing := [key for key in keys if key in whole and key not in there]):
        for names, made in _taken(keeper, connection, replace(space, dimensions=space.longer, longer=None), missing):
            yield names, shortened(made, space.dimensions)


def _taken(
    keeper: Keeper, connection: Connection, space: Space, keys: list[bytes]
) -> Generator[tuple[list[bytes], np.ndarray], None, set[bytes]]:
    """Yields what is kept of one space, and returns the keys of it."""
    _recover(keeper, connection, space)
    there = set[bytes]()
    for segment, (names, positions) in _placed(keeper, connection, space, keys).items():
        try:
            made = vectors(_read(keeper, space, segment))
        except FileNotFoundError:  # somebody cleared the folder: these are made again
            connection.execute(
                "DELETE FROM vecferry.vector WHERE space = %s AND segment = %s", (space.fingerprint, segment)
            )  # another space has one of that name, of the same contents
            continue
        there.update(names)
        yield names, made[positions]
    return there


def _placed(
    keeper: Keeper, connection: Connection, space: Space, keys: list[bytes]
) -> Mapping[str, tuple[list[bytes], list[int]]]:
    """Where those of the keys lie that are kept: segment → keys and their positions in it."""
    kept: dict[str, tuple[list[bytes], list[int]]] = defaultdict(lambda: ([], []))
    with keeper.turn(connection) as turn:
        for part in turn.cut(len(keys)):
            rows = connection.execute(
                "SELECT segment, array_agg(content), array_agg(position) FROM vecferry.vector "
                "WHERE space = %s AND content = ANY(%b::bytea[]) GROUP BY segment",
                (space.fingerprint, keys[part]),
                binary=True,
            )
            for segment, names, positions in rows:
                kept[segment][0].extend(names)
                kept[segment][1].extend(positions)
    return kept


def keep(keeper: Keeper, connection: Connection, space: Space, keys: list[bytes], made: np.ndarray) -> None:
    """Writes vectors, float32[n, d], as a segment, then into the index."""
    table = pa.table({"content": pa.array(keys, pa.binary()), "embedding": vector_column(made)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    segment = f"{sha256(b''.join(keys)).hexdigest()[:32]}.arrow"
    files.write(_path(keeper, space, segment), memoryview(sink.getvalue()))
    try:
        _index(keeper, connection, space, segment, keys)
    except BaseException:
        keeper.recovered.forget(space)
        raise


def _recover(keeper: Keeper, connection: Connection, space: Space) -> None:
    """Indexes what was written and not indexed, once in a process; who comes meanwhile waits for it."""
    with keeper.recovered.lock:
        if space.fingerprint in keeper.recovered.spaces:
            return
        if written := set(files.names(_path(keeper, space))):
            with keeper.turn(connection):
                query = "SELECT DISTINCT segment FROM vecferry.vector WHERE space = %s"
                indexed = {segment for (segment,) in connection.execute(query, (space.fingerprint,))}
            for segment in sorted(written - indexed):
                _index(keeper, connection, space, segment, _read(keeper, space, segment).column("content").to_pylist())
        keeper.recovered.spaces.add(space.fingerprint)


def _read(keeper: Keeper, space: Space, segment: str) -> pa.Table:
    """Raises FileNotFoundError where somebody has cleared the folder."""
    return pa.ipc.open_file(pa.py_buffer(files.read(_path(keeper, space, segment)))).read_all()


def _index(keeper: Keeper, connection: Connection, space: Space, segment: str, keys: list[bytes]) -> None:
    # All or nothing of a segment: one that is indexed in part would pass for one that is indexed.
    with keeper.turn(connection) as turn, connection.transaction():
        for rows in turn.cut(len(keys)):
            connection.execute(
                "INSERT INTO vecferry.vector (space, content, segment, position) SELECT %s, content, %s, %s + place - 1 "
                "FROM unnest(%b::bytea[]) WITH ORDINALITY AS t (content, place) ON CONFLICT DO NOTHING",
                (space.fingerprint, segment, rows.start, keys[rows]),
            )


def _path(keeper: Keeper, space: Space, *segment: str) -> str:
    return files.join(keeper.home, "vectors", *space.fingerprint.split("/"), *segment)
