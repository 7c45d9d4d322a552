"""What a run of Chroma collections leaves, as text that two of them can be compared by."""

from collections import Counter
from pathlib import Path
from typing import Any

from psycopg import sql

from tasks.runs import dataset
from tasks.stores.chroma import copy_folders
from tests.kill.moments import RUN
from tests.kill.processes import Place

Picture = dict[str, dict[str, str]]
"""Section → name → what it says, all as text."""

OURS = """JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'vecferry')
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"""
CATALOGUE = {
    "tables": f"SELECT c.oid::regclass::text, c.relkind::text FROM pg_class c {OURS} ORDER BY 1",
    "columns": f"""SELECT c.oid::regclass || '.' || attname, format_type(atttypid, atttypmod), attnotnull
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid {OURS} AND attnum > 0 ORDER BY 1""",
    "indexes": f"""SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid, indisready, indisprimary
        FROM pg_index JOIN pg_class c ON c.oid = indrelid {OURS} ORDER BY 1""",
    "runs": "SELECT run_id, state, exit_status, error, stop FROM vecferry.run ORDER BY 1",
    "relations": """SELECT table_schema || '.' || table_name, run_id, target, role, source, space
        FROM vecferry.relation ORDER BY 1""",
    "undo": """SELECT run_id || ' ' || id, target, present, document, metadata, uri, embedding, content_hash
        FROM vecferry.undo ORDER BY 1""",
    # A resumed sync touches only what is left, so the rows of catching up may differ.
    "batches": """SELECT run_id || ' ' || stage || ' ' || batch, status, quarantined,
        CASE WHEN stage <> 'catch_up' THEN rows END FROM vecferry.batch ORDER BY 1""",
}


def picture(place: Place) -> Picture:
    """Everything in the database that may not depend on how often the process was killed, and the files of the runs."""
    with place.connection() as connection:

        def of(query: Any) -> dict[str, str]:
            seen: Counter[str] = Counter()
            result = {}
            for name, *values in connection.execute(query).fetchall():
                seen[name] += 1
                result[name if seen[name] == 1 else f"{name} ({seen[name]})"] = ", ".join(map(str, values))
            return result

        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.columns WHERE column_name = 'content_hash' "
            "AND table_name <> 'undo'"
        ).fetchall()
        rows = sql.SQL("SELECT id, t::text FROM {} AS t ORDER BY 1, 2")
        shown: Picture = {f"rows of {s}.{n}": of(rows.format(sql.Identifier(s, n))) for s, n in tables}
        shown |= {name: of(query) for name, query in CATALOGUE.items()}
    # A forked process ends without removing its private copy of the source, as a killed one does: the next start does.
    kept = (p for p in place.home.rglob("*") if p.is_file() and p.suffix not in (".part", ".json"))
    names = [str(p.relative_to(place.home)) for p in kept]
    shown["files"] = {name: "" for name in names if not name.startswith(f"{copy_folders.FOLDER}/")}
    shown["snapshot"] = _snapshot(place.home / "runs" / RUN / "snapshot")
    return shown


def _snapshot(root: Path) -> dict[str, str]:
    """Every part of the manifest, read back against its checksum."""
    _, parts = dataset.read_manifest(str(root))
    return {part.path: str(sorted(map(str, dataset.read_part(str(root), part).to_pylist()))) for part in parts}


def differences(expected: Picture, seen: Picture) -> list[str]:
    """What ``seen`` lacks, has too much or says otherwise, a line each."""
    lines = []
    for section in sorted(expected.keys() | seen.keys()):
        here, there = expected.get(section, {}), seen.get(section, {})
        for name in sorted(here.keys() | there.keys()):
            if name not in there:
                lines.append(f"{section}: {name} is missing")
            elif name not in here:
                lines.append(f"{section}: {name} should not be there: {there[name][:200]}")
            elif here[name] != there[name]:
                same = (a == b for a, b in zip(here[name], there[name], strict=False))
                at = max(0, next((n for n, s in enumerate(same) if not s), 0) - 20)
                lines.append(f"{section}: {name} is …{there[name][at : at + 80]}, not …{here[name][at : at + 80]}")
    return lines
