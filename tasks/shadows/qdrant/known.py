"""What a run has written of each point, as hashes in the ledger's database: noted once the write was acknowledged, in the
transaction of the mark where there is one.

It tells a document that changed since it was embedded, and what somebody else wrote into a collection from what we did.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.runs.run import Run
from tasks.shadows.qdrant.points import Digest
from tasks.stores.postgres.connection import Connection

PAGE = 2_000


@dataclass(frozen=True)
class Known:
    """What is known of one point."""

    document: bytes | None
    """Hash of the document that its vector is of; None where it is to be looked at anew."""
    payload: bytes | None = None
    """Hash of the payload that was written with it."""
    others: bytes | None = None
    """Hash of the vectors that were written beside it."""
    intended: bytes | None = None
    """Hash of the payload of a write that began and may be there."""
    refused: bool = False
    """Whether it was set aside."""
    kept: bytes | None = None
    """Hash of the payload that others had given it, when it was last looked at while nobody used it."""

    @property
    def is_the_runs(self) -> bool:
        """Whether the run wrote the point, or began to."""
        return self.payload is not None or self.intended is not None

    def wrote(self, payload: bytes) -> bool:
        """Whether the payload that a point has is what the run wrote."""
        return payload in (self.payload, self.intended)

    def is_of(self, told: Digest) -> bool:
        """Whether the vector that was written is of what a point says, and the payload, where that was written too, is the same."""
        return self.document == told.document and self.payload in (None, told.payload)


@dataclass(frozen=True)
class Notes:
    """The notes on the points of one target."""

    run: Run
    target: int

    @property
    def key(self) -> tuple[str, int]:
        return self.run.run_id, self.target

    def of(self, ids: Sequence[str]) -> dict[str, Known]:
        """Those of ``ids`` that are known."""
        with self.run.connection() as connection:
            rows = connection.execute(
                "SELECT id, document_hash, payload_hash, others_hash, intended_hash, refused, kept_hash FROM vecferry.point "
                "WHERE run_id = %s AND target = %s AND id = ANY(%s)",
                (*self.key, list(ids)),
                binary=True,
            ).fetchall()
        return {name: Known(*row) for name, *row in rows}

    def intend(self, payloads: Mapping[str, bytes]) -> None:
        """Before a write that may hit what others write: the payload that it has, by id."""
        with self.run.connection() as connection:
            connection.execute(
                "INSERT INTO vecferry.point (run_id, target, id, intended_hash) "
                "SELECT %s, %s, * FROM unnest(%s::text[], %b::bytea[]) "
                "ON CONFLICT (run_id, target, id) DO UPDATE SET intended_hash = excluded.intended_hash",
                (*self.key, list(payloads), list(payloads.values())),
            )

    def keep(self, payloads: Mapping[str, bytes]) -> None:
        """What others have given points that nobody uses just now, by id."""
        with self.run.connection() as connection:
            connection.execute(
                "INSERT INTO vecferry.point (run_id, target, id, kept_hash) SELECT %s, %s, * FROM unnest(%s::text[], %b::bytea[]) "
                "ON CONFLICT (run_id, target, id) DO UPDATE SET kept_hash = excluded.kept_hash",
                (*self.key, list(payloads), list(payloads.values())),
            )

    def leave(self, payloads: Mapping[str, bytes]) -> None:
        """Before points are deleted: the payload that each of them has, by id. One that is gone then is not known to have been
        written, and one that is still there is known by it."""
        with self.run.connection() as connection:
            connection.execute(
                "UPDATE vecferry.point AS p SET payload_hash = NULL, intended_hash = leaving.payload "
                "FROM unnest(%s::text[], %b::bytea[]) AS leaving (id, payload) "
                "WHERE p.run_id = %s AND p.target = %s AND p.id = leaving.id",
                (list(payloads), list(payloads.values()), *self.key),
            )

    def note(self, written: Mapping[str, Known], connection: Connection | None = None) -> None:
        """What was written, by id; in the transaction of ``connection`` where one is given."""
        if connection is None:
            with self.run.connection() as own:
                return self.note(written, own)
        known = written.values()
        connection.execute(
            "INSERT INTO vecferry.point AS p (run_id, target, id, document_hash, payload_hash, others_hash, refused) "
            "SELECT %s, %s, * FROM unnest(%s::text[], %b::bytea[], %b::bytea[], %b::bytea[], %s::boolean[]) "
            "ON CONFLICT (run_id, target, id) DO UPDATE SET document_hash = excluded.document_hash, "
            "payload_hash = excluded.payload_hash, others_hash = excluded.others_hash, refused = excluded.refused, "
            "intended_hash = NULL, kept_hash = NULL",
            (
                *self.key,
                list(written),
                [k.document for k in known],
                [k.payload for k in known],
                [k.others for k in known],
                [k.refused for k in known],
            ),
        )
        return None

    def forget(self, ids: Sequence[str]) -> None:
        """Of points that are gone."""
        with self.run.connection() as connection:
            connection.execute(
                "DELETE FROM vecferry.point WHERE run_id = %s AND target = %s AND id = ANY(%s)", (*self.key, list(ids))
            )

    def reread(self) -> None:
        """Has every document looked at anew."""
        with self.run.connection() as connection:
            connection.execute(
                "UPDATE vecferry.point SET document_hash = NULL WHERE run_id = %s AND target = %s", self.key
            )

    def drop(self) -> None:
        """All of them."""
        with self.run.connection() as connection:
            connection.execute("DELETE FROM vecferry.point WHERE run_id = %s AND target = %s", self.key)

    def set_aside(self, nameless: bytes) -> tuple[int, int]:
        """How many were set aside because they have no document, which ``nameless`` stands for, and how many for another reason."""
        with self.run.connection() as connection:
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE document_hash = %b), count(*) FILTER (WHERE document_hash <> %b) "
                "FROM vecferry.point WHERE run_id = %s AND target = %s AND refused",
                (nameless, nameless, *self.key),
            ).fetchone()
        assert row
        return row[0], row[1]

    def pages(self) -> Iterator[list[str]]:
        """All ids that are known, a page at a time."""
        last = ""
        while True:
            with self.run.connection() as connection:
                rows = connection.execute(
                    "SELECT id FROM vecferry.point WHERE run_id = %s AND target = %s AND id > %s ORDER BY id LIMIT %s",
                    (*self.key, last, PAGE),
                ).fetchall()
            if not rows:
                return
            page = [row[0] for row in rows]
            yield page
            last = page[-1]
