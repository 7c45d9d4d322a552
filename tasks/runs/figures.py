"""What the ledger says of the time that a run's stages took."""

from tasks.runs.run import Run


def stages(run: Run) -> dict[str, dict[str, float]]:
    """Stage → rows, seconds of work, and rows a second."""
    with run.connection() as connection:
        lines = connection.execute(
            "SELECT stage, sum(rows)::bigint, sum(seconds) FROM vecferry.batch WHERE run_id = %s AND status = 'done' "
            "AND stage NOT IN ('verify', 'manifest') GROUP BY stage ORDER BY min(updated_at)",
            (run.run_id,),
        ).fetchall()
    return {
        stage: {"rows": rows, "seconds": round(s, 3), "rows_per_second": round(rows / s) if s and rows else 0}
        for stage, rows, s in lines
    }


def worked(run: Run) -> float:
    """Seconds that the run's other stages than verification took for one of its targets on average."""
    with run.connection() as connection:
        row = connection.execute(
            "SELECT coalesce(sum(seconds), 0) FROM vecferry.batch WHERE run_id = %s AND stage <> 'verify'",
            (run.run_id,),
        ).fetchone()
    assert row
    return float(row[0]) / len(run.plan.targets)
