"""A random sample of rows against their source, or against the same documents embedded once more."""

from typing import Any

import numpy as np
import pyarrow as pa

from tasks.checks import measures
from tasks.checks.fresh_vectors import fresh_vectors
from tasks.checks.gates import Gates
from tasks.checks.measures import Check
from tasks.checks.moved import moved
from tasks.runs import spending
from tasks.runs.plan import Target
from tasks.runs.run import Run
from tasks.shadows.difference import Difference
from tasks.stores.interface import Records, vectors


def sample_check(run: Run, target: Target[Any], made: Records, gates: Gates, known: Difference) -> Check:
    """The cosine of every sampled row with what it should be. ``known`` is what comparing every row has come to."""
    wanted = f"≥ {gates.min_row_cosine:g}"
    batches = list(made.sample(gates.sample, settled=True))  # nothing is being read while a model is asked
    if not batches:
        return Check("row cosine", False, 0, "no rows to sample", wanted)
    rows = pa.Table.from_batches(batches).combine_chunks()
    names = rows.column("id").to_pylist()
    if target.carried:
        fetched = run.records(target).fetch(names)
        theirs = dict(zip(fetched.column("id").to_pylist(), vectors(fetched), strict=True))
    else:
        documents = rows.column("document").to_pylist()
        made_anew = fresh_vectors(spending.embedder_of(run), target.content, documents)
        theirs = {names[at]: vector for at, vector in made_anew.items()}
    there = [i for i, name in enumerate(names) if name in theirs]
    if not there:
        return Check("row cosine", False, 0, "none of the sampled rows is at the source", wanted)
    cosine = measures.row_cosine(vectors(rows)[there], np.stack([theirs[names[i]] for i in there]))
    if target.carried:
        low = [names[i] for i, near in zip(there, cosine, strict=True) if near < gates.min_row_cosine]
        ignored = moved(run, target, low, known)
        cosine = cosine[[names[i] not in ignored for i in there]]
    lowest = float(cosine.min(initial=1.0))
    passed = len(cosine) > 0 and lowest >= gates.min_row_cosine
    return Check("row cosine", passed, len(cosine), f"lowest {lowest:.6f}", wanted, gate="min_row_cosine")
