"""A migration that a program calls: ``flows.client.migrate_to_new_model``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.stores.postgres.connection import Connection
from tests.helpers import prefect_database
from tests.helpers.served_tables import Served

NEW = "hashing/768"
PROGRAM = """
import json, sys
from flows.client import migrate_to_new_model
from tasks.base.errors import UsageError, VerificationRefused

try:
    migrate_to_new_model("hashing/384", "hashing/5")
except UsageError as error:
    print(error)
done = migrate_to_new_model("hashing/384", "hashing/768", batch_rows=20, cutover="auto")
print(json.dumps(done))
"""


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_a_plain_program(connection: Connection, database: str, tmp_path: Path) -> None:
    """Without a server of Prefect's, in an empty directory: it ends with the vectors in use, says on standard error how far it is and
    nothing of Prefect's, and returns what was done; a mistake is an error in plain words, told before anything is begun."""
    served = Served(connection)
    served.init(NEW)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "VECFERRY_"))}
    environment = {**kept, "DATABASE_URL": database, "PREFECT_HOME": str(tmp_path / "prefect")}
    prefect_database.copy(tmp_path / "prefect/prefect.db")
    (tmp_path / "program").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path / "program", env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    mistake, result = ended.stdout.splitlines()
    assert "no model 'hashing/5' is registered" in mistake
    done = json.loads(result)
    assert (done["flow"], done["state"], done["exit"]) == ("multi-model", "cut_over", 0)
    assert [target["rows"] for target in done["targets"]] == [len(served.chunks())]
    assert Path(done["report"]).exists()
    assert f"run {done['run_id']}" in ended.stderr
    assert "load" in ended.stderr
    assert "prefect" not in ended.stderr.lower(), ended.stderr
    assert served.active() == NEW
    assert served.vectors(NEW) == served.expected(NEW)
    assert sorted(p.name for p in (tmp_path / "program").iterdir()) == [".vecferry"]
