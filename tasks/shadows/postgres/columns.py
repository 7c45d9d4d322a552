"""What the columns of a live table are called: a cutover may rename them, that of the run itself or of a later one. The plan says
what they were called when it was made, and the registry of models what they are called now.

Whoever writes to a column looks once more, in the transaction in which he writes: from then on nobody renames it. Until its cutover a
run's own column is called as planned.
"""

from dataclasses import replace

from psycopg import sql

from tasks.runs import models
from tasks.runs.plan import Target
from tasks.stores.postgres.connection import Connection
from tasks.stores.postgres.places import SCHEMA, LivePlace


def current(connection: Connection, target: Target[LivePlace]) -> Target[LivePlace]:
    """The target with its columns, of the new vectors and of the old, as they are called now."""
    place = target.place
    row = connection.execute(called(place)).fetchone() if models.exists(connection) else None
    if row is None:
        return target
    new, old = row
    live = replace(place.live, vectors=old or place.live.vectors)
    return replace(target, place=replace(place, new_column=new, live=live))


def called(place: LivePlace) -> sql.Composed:
    """The query of both names; no row before the run has claimed its column, and a null where the old one is not known."""
    return sql.SQL(
        "SELECT m.column_name, o.column_name FROM vecferry.relation r JOIN vecferry.model m USING (run_id, target) "
        "LEFT JOIN vecferry.model o ON o.model = m.planned_from WHERE (r.table_schema, r.table_name) = ({}, {})"
    ).format(sql.Literal(SCHEMA), sql.Literal(place.shadow))
