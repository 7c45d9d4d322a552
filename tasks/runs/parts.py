"""What a snapshot's batches left behind: the listings of ids, and the parts that were cut from them."""

import pyarrow as pa

from tasks.runs import dataset
from tasks.runs.plan import Target
from tasks.runs.run import Run


def ids_file(target: Target, listing: int) -> str:
    """Where a listing of the target's ids is kept, below the snapshot's folder."""
    return f"{dataset.folder(target.number, target.place.label)}/ids-{listing}.parquet"


def listed_ids(run: Run, target: Target) -> pa.Array:
    """The ids of a limited run: what its only listing holds."""
    return dataset.read_ids(run.path("snapshot", ids_file(target, 0)))
