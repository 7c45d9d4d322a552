"""Records as they travel, beside what tasks.stores.interface says of them."""

import pyarrow as pa

from tasks.stores import canonical


def with_hash(page: pa.Table) -> pa.Table:
    """Adds the ``content_hash`` column: binary[32] a row."""
    columns = (page.column(name).to_pylist() for name in ("document", "metadata", "uri"))
    hashes = [canonical.content_hash(*row) for row in zip(*columns, strict=True)]
    return page.append_column("content_hash", pa.array(hashes, pa.binary()))
