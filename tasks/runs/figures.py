"""What the ledger says of the time that a run's stages took."""

from dataclasses import dataclass

from tasks.runs.run import Run


@dataclass(frozen=True)
class Speed:
    """Of a stage."""

    rows: int
    seconds: float
    """Of work."""
    rows_per_second: int


def stages(run: Run) -> dict[str, Speed]:
    """Of those that were done."""
    with run.connection() as connection:
        lines = connection.execute(
            "SELECT stage, sum(rows)::bigint, sum(seconds) FROM vecferry.batch WHERE run_id = %s AND status = 'done' "
            "AND stage NOT IN ('verify', 'manifest') GROUP BY stage ORDER BY min(updated_at)",
            (run.run_id,),
        ).fetchall()
    return {
        stage: Speed(rows, round(seconds, 3), round(rows / seconds) if seconds and rows else 0)
        for stage, rows, seconds in lines
    }


def worked(run: Run) -> float:
    """Seconds that the run's other stages than verification took for one of its targets on average: by the clock, where workers were
    beside each other, and without the time between two starts."""
    with run.connection() as connection:
        row = connection.execute(
            "SELECT coalesce(sum(least(worked, clock)), 0) FROM (SELECT sum(seconds) AS worked, "
            "extract(epoch FROM max(updated_at) - min(updated_at - seconds * interval '1 s'))::float8 AS clock "
            "FROM vecferry.batch WHERE run_id = %s AND stage <> 'verify' GROUP BY stage) AS stages",
            (run.run_id,),
        ).fetchone()
    assert row
    return float(row[0]) / len(run.plan.targets)
