"""Records as they travel, beside what tasks.stores.interface says of them, and how they are read of a store that lists ids and
fetches by them."""

import random
from collections.abc import Iterator

import pyarrow as pa

from tasks.stores import canonical
from tasks.stores.interface import Records

PAGE = 2_000


def with_hash(page: pa.Table) -> pa.Table:
    """Adds the ``content_hash`` column: binary[32] a row."""
    names = [name for name in ("document", "metadata", "uri", "others") if name in page.column_names]
    columns = (page.column(name).to_pylist() for name in names)
    hashes = [canonical.content_hash(*row) for row in zip(*columns, strict=True)]
    return page.append_column("content_hash", pa.array(hashes, pa.binary()))


def streamed(records: Records, content: bool) -> Iterator[pa.RecordBatch]:
    """All records, a page of ids at a time."""
    ids = records.ids()
    for at in range(0, len(ids), PAGE):
        yield records.fetch(ids[at : at + PAGE].to_pylist(), content=content)


def sampled(records: Records, rows: int, content: bool) -> Iterator[pa.RecordBatch]:
    """So many random records that have a vector, or all of them."""
    ids = records.ids()
    order, wanted = random.sample(range(len(ids)), len(ids)), rows
    for at in range(0, len(order), max(rows, 1)):
        page = records.fetch(ids.take(pa.array(order[at : at + rows])).to_pylist(), content=content)
        drawn = page.filter(page.column("embedding").is_valid())[:wanted]
        yield drawn
        wanted -= drawn.num_rows
        if not wanted:
            return
