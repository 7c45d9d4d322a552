"""What was spent on vectors outside of runs: by the service, by `vecferry ingest` and `search`, by applications. Days are those of UTC."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from tasks.embedders.budget import Spent
from tasks.stores.postgres.connection import Connection

TODAY = "(now() AT TIME ZONE 'UTC')::date"


@dataclass(frozen=True)
class Purchases:
    """What one kind of buyer has spent since the first time."""

    buyer: str
    since: date
    requests: int
    tokens: int
    dollars: float
    today: float
    """Dollars."""

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "since": self.since.isoformat()}


def add(connection: Connection, buyer: str, spent: Spent) -> None:
    """Notes what was spent today."""
    connection.execute(
        f"INSERT INTO vecferry.purchase AS p (day, buyer, requests, tokens, dollars) VALUES ({TODAY}, %s, %s, %s, %s) "
        "ON CONFLICT (day, buyer) DO UPDATE SET requests = p.requests + excluded.requests, "
        "tokens = p.tokens + excluded.tokens, dollars = p.dollars + excluded.dollars",
        (buyer, spent.requests, spent.tokens, spent.dollars),
    )


def dollars_today(connection: Connection, buyer: str) -> float:
    """By all processes of that kind."""
    row = connection.execute(
        f"SELECT coalesce(sum(dollars), 0) FROM vecferry.purchase WHERE buyer = %s AND day = {TODAY}", (buyer,)
    ).fetchone()
    assert row
    return float(row[0])


def purchases(connection: Connection) -> list[Purchases]:
    """Of each kind of buyer, the largest first; none where the ledger is of an earlier version."""
    if connection.execute("SELECT to_regclass('vecferry.purchase')").fetchone() == (None,):
        return []
    rows = connection.execute(
        "SELECT buyer, min(day), sum(requests)::int8, sum(tokens)::int8, sum(dollars), "
        f"coalesce(sum(dollars) FILTER (WHERE day = {TODAY}), 0) FROM vecferry.purchase GROUP BY buyer ORDER BY 5 DESC, 1"
    ).fetchall()
    return [Purchases(*row) for row in rows]
