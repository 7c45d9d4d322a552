"""What labels tell of a change of model, against the definitions written out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tasks.checks import labels
from tasks.checks.labels import gained, label_checks, ranked
from tasks.stores.interface import Collection, Labelled
from tasks.stores.memory import MemoryRecords
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.pgvector import Layout
from tasks.stores.postgres.records import TableRecords
from tasks.stores.postgres.table import Table

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def written_out(matrix: np.ndarray, codes: Sequence[int], row: int) -> tuple[float, float]:
    """Top-1 and average precision of one row by their definitions, where no two distances are equal."""
    others = [at for at in range(len(codes)) if at != row]
    others.sort(key=lambda at: float(((matrix[at].astype(float) - matrix[row].astype(float)) ** 2).sum()))
    hits = [codes[at] == codes[row] for at in others]
    precisions = [sum(hits[: k + 1]) / (k + 1) for k, hit in enumerate(hits) if hit]
    return float(hits[0]), sum(precisions) / len(precisions)


@quick
@given(members=st.lists(st.integers(2, 7), min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_ranking_is_what_the_definitions_say(members: list[int], seed: int) -> None:
    """Top-1 and average precision of every row, over blocks too, are those of sorting all of the others."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(members)), members))
    matrix = rng.standard_normal((len(codes), 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "BLOCK", 3)
        told = ranked(matrix, codes, "l2")
    expected = np.array([written_out(matrix, codes.tolist(), row) for row in range(len(codes))])
    np.testing.assert_allclose(told.top1, expected[:, 0])
    np.testing.assert_allclose(told.precision, expected[:, 1])


def test_a_row_is_never_its_own_neighbour() -> None:
    """Of rows that are equal to rows of another label only, none is told to be found, whatever its distance to itself is."""
    matrix = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    told = ranked(matrix, np.array([0, 1, 0, 1, 2, 3, 2, 3]), "cosine")
    assert told.top1.tolist() == [0.0] * 8
    assert ranked(matrix, np.array([0, 0, 1, 1, 2, 2, 3, 3]), "cosine").precision.tolist() == [1.0] * 8


def test_what_has_no_distance_is_not_retrieved() -> None:
    """A zero vector under cosine finds nothing and is found by nothing, and counts all the same."""
    matrix = np.array([[1, 0], [0, 0], [0, 1], [0.1, 1]], np.float32)
    told = ranked(matrix, np.array([0, 0, 1, 1]), "cosine")
    assert told.top1.tolist() == [0, 0, 1, 1]
    assert told.precision.tolist() == [0, 0, 1, 1]
    nothing = ranked(np.zeros((4, 2), np.float32), np.array([0, 0, 1, 1]), "cosine")
    assert nothing.top1.tolist() == nothing.precision.tolist() == [0] * 4


def test_the_bootstrap_draws_labels_and_not_rows() -> None:
    """A gain that a single label of many rows has is not shown, though its rows are most of all; one that every label has is, and
    one that too few have is not decided."""
    one_large = np.repeat(np.arange(12), [200, *[3] * 11])
    gain = np.where(one_large == 0, 1.0, -0.1)
    told = gained(np.zeros(len(gain)), gain, one_large)
    assert told.gain > 0.8
    assert told.low < 0
    assert told.verdict == "no difference is shown"
    every = np.repeat(np.arange(12), 5)
    zero, some = np.zeros(60), np.tile([0.0, 0.5, 1.0, 0.5, 0.0], 12)
    assert [gained(*pair, every).verdict for pair in ((zero, some), (some, zero))] == ["better", "worse"]
    few = np.repeat(np.arange(5), 5)
    assert gained(zero[:25], some[:25], few).verdict == "too few labels to tell"


def given_rows(matrix: np.ndarray) -> MemoryRecords:
    rows = {f"{n}": {"id": f"{n}", "embedding": vector.tolist()} for n, vector in enumerate(matrix)}
    return MemoryRecords(Collection("rows", "", len(rows), matrix.shape[1], "cosine"), rows)


class WithLabels:
    """Rows whose labels are given."""

    def __init__(self, rows: MemoryRecords, labelled: Labelled) -> None:
        self.rows, self.given = rows, labelled

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)

    def labelled(self, rows: int, each: int) -> Labelled:
        return self.given


def told_of(of: dict[str, str], old: np.ndarray, new: np.ndarray, limited: bool = False) -> labels.Told:
    rows: Any = WithLabels(given_rows(new), Labelled("animal", of, len(set(of.values())), 2, 3))
    return label_checks(given_rows(old), rows, limited)


def test_old_is_told_against_new_with_what_loses_most() -> None:
    """Figures, intervals, a verdict, and the labels that lose most first; what has no other to be found by is told apart."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((8, 16))
    codes = np.repeat(np.arange(8), 4)
    new = (centres[codes] + 0.01 * rng.standard_normal((32, 16))).astype(np.float32)
    old = rng.standard_normal((32, 16)).astype(np.float32)
    old[codes == 5] = new[codes == 5]
    new[codes == 5] = rng.standard_normal((4, 16))
    told = told_of({str(n): f"cat {code}" for n, code in enumerate(codes)}, old, new)
    figures = told.labels
    assert figures
    assert (figures.rows, figures.of, figures.alone, figures.unlabelled) == (32, 8, 2, 3)
    assert figures.top1.new > 0.85 > 0.5 > figures.top1.old
    assert figures.top1.low < figures.top1.gain < figures.top1.high
    assert (figures.map.verdict, figures.worst[0].label, figures.worst[0].old_map) == ("better", "cat 5", 1.0)
    assert [check.passed for check in told.checks] == [True]
    assert told.checks[0].looked_at == 32
    assert told.notes[-1] == "left out by animal: 2 labels have a single row and 3 rows have no label"
    assert told.notes[0].startswith("top-1 accuracy by animal, of 32 rows of 8 labels: ")
    assert told.notes[0].endswith(": better")


def test_labels_that_nothing_was_looked_at_by_have_failed() -> None:
    """Where no two rows with both vectors share a label the check fails, save in a smoke run, which may hold one of each."""
    matrix = np.eye(3, dtype=np.float32)
    apart = {"0": "a", "7": "a", "1": "b", "8": "b"}
    told = told_of(apart, matrix, matrix)
    assert [check.passed for check in told.checks] == [False]
    assert told.labels is None
    smoke = told_of(apart, matrix, matrix, limited=True)
    assert smoke.checks == []
    assert smoke.notes == told.notes != []
    assert label_checks(given_rows(matrix), given_rows(matrix), False) == labels.Told([], [])


def test_labels_are_drawn_whole_from_the_table(connection: Connection) -> None:
    """As many labels as there is room for, always the same, each with its rows up to a number; NULL and empty ones, single ones and
    rows without a vector are told apart."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute('CREATE TABLE pets ("No." int PRIMARY KEY, "who?" varchar(9), embedding vector(2))')
    connection.execute(
        "INSERT INTO pets SELECT n, CASE WHEN n < 200 THEN 'pet ' || n / 4 WHEN n < 203 THEN 'one ' || n WHEN n < 207 THEN NULL "
        "WHEN n < 209 THEN '' WHEN n < 300 THEN 'many' ELSE 'bare' END, CASE WHEN n < 300 THEN '[1,2]'::vector END "
        "FROM generate_series(0, 309) AS n"
    )
    table = Table("public", "pets", Layout("vector", 2, "cosine"), '"No."::text', label="who?")
    drawn = TableRecords(connection, table).labelled(100, 10)
    assert drawn
    assert (drawn.name, drawn.labels, drawn.alone, drawn.unlabelled) == ("who?", 51, 3, 6)
    assert 90 <= len(drawn.of) <= 100
    sizes = {label: list(drawn.of.values()).count(label) for label in drawn.of.values()}
    assert set(sizes.values()) <= {4, 10}
    assert all(int(n) // 4 == int(label[4:]) for n, label in drawn.of.items() if label.startswith("pet"))
    assert TableRecords(connection, table).labelled(100, 10) == drawn
    everything = TableRecords(connection, table).labelled(2_000, 50)
    assert everything
    assert len(everything.of) == 250
    assert "many" in everything.of.values()
    assert TableRecords(connection, Table("public", "pets", table.layout, table.key)).labelled(9, 9) is None
