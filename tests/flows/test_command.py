"""What the command tells and takes: parameters, names, completion, the next command, and what it asks before it drops."""

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import BaseModel

from flows.command import arguments, commands, main
from flows.command.watching import Reading, speed
from flows.forms.chroma_to_pgvector import ChromaToPgvector
from flows.forms.form import parse
from flows.forms.registry import FLOWS
from tasks.base import prefect_api
from tasks.begin import begin
from tasks.runs import checkpoints, ledger, ledger_versions
from tasks.runs.details import Cut
from tasks.stores.postgres.connection import Connection
from tests.helpers.sampling import sampled
from tests.helpers.servers import free_port
from tests.helpers.terminal import COMMAND, terminal

pytestmark = pytest.mark.timeout(300)
Vecferry = Callable[..., tuple[int, str, str]]
RUN = ("run", "chroma-to-pgvector")


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a Prefect server that is away, in effect."""
    url = f"http://me:geheim@127.0.0.1:{free_port()}/api"
    prefect_api.require.cache_clear()
    with temporary_settings({PREFECT_API_URL: url}):
        yield url
    prefect_api.require.cache_clear()


@pytest.mark.parametrize("flow", FLOWS)
def test_params_lists_every_parameter_of_a_flow(vecferry: Vecferry, flow: str) -> None:
    """Each field of the form and of what is nested in it is there, with type, default and help."""
    code, out, _ = vecferry("params", flow)
    assert code == 0
    shown = dict(re.findall(r"^(\S+)  (.*\n    .*)$", out, re.MULTILINE))
    schema = FLOWS[flow].model_json_schema()
    for name, field in schema["properties"].items():
        if model := _model_of(field, schema):
            listed = field.get("type") == "array"
            for key, nested in model["properties"].items():
                assert nested["description"] in shown[f"{name}{'[]' if listed else ''}.{key}"]
        else:
            assert field["description"] in shown[name]
    assert shown["gates.min_recall"].startswith("number, 0 to 1; default 0.9\n")
    assert shown["cutover"].startswith("manual | ask | auto; default manual\n")
    as_json = json.loads(vecferry("params", flow, "--json")[1])
    assert [p["name"] for p in as_json] == list(shown)


@pytest.mark.parametrize(
    ("given", "near", "known"),
    [
        ("chroma.pth=x", "chroma.path", "chroma.host"),
        ("gates.min_recal=1", "gates.min_recall", "gates.sample"),
        ("min_recall=1", "gates.min_recall", "gates"),
        ("path=x", "chroma.path", "collections"),
        ("colections=[docs]", "collections", "batch_rows"),
        ("chrma.path=x", "chroma", "collections"),
    ],
)
def test_a_misspelt_parameter_names_the_nearest(vecferry: Vecferry, given: str, near: str, known: str) -> None:
    """And the keys there are, of the model that it would be in."""
    code, _, err = vecferry(*RUN, "-p", given)
    assert code == 2
    assert f"unknown parameter {given.partition('=')[0].removesuffix('.path')!r}" in err
    assert f"did you mean {near}?" in err
    assert known in err.split("The parameters are ")[1]


def test_a_misspelt_parameter_of_a_verb_and_of_a_table(vecferry: Vecferry) -> None:
    """The same where the model is of another verb, or an entry of a list."""
    assert "did you mean gates.max_quarantined?" in vecferry("cutover", "r", "-p", "gates.max_quarantine=3")[2]
    assert "did you mean rollback_days?" in vecferry("contract", "r", "-p", "rolback_days=3")[2]
    assert "did you mean database?" in vecferry("status", "-p", "databse=X")[2]
    ended = vecferry("run", "text-384-to-1536", "-p", "targets=[{tabel: docs}]")[2]
    assert "did you mean targets.0.table?" in ended
    assert "chroma.path" in vecferry(*RUN, "-p", "chroma=./directory")[2]
    assert "did you mean chroma-to-pgvector?" in vecferry("run", "chroma-to-pgvectr")[2]


def test_version_and_short_help(vecferry: Vecferry) -> None:
    """--version prints it; -h is --help, of the command and of its verbs."""
    assert re.fullmatch(r"vecferry \d+\.\d+\.\d+\n", vecferry("--version")[1])
    assert "rollback" in vecferry("-h")[1]
    assert "--run-id" in vecferry("run", "-h")[1]


def _complete(line: str, **environment: str) -> tuple[list[str], float]:
    started = time.monotonic()
    asked = os.environ | _asked(line) | environment
    done = subprocess.run([COMMAND], env=asked, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    return done.stdout.split(), time.monotonic() - started


def _asked(line: str) -> dict[str, str]:
    """As bash asks for what may follow."""
    return {"_VECFERRY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}


def test_completion(
    connection: Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell completes verbs, flows, parameters and runs; quickly and in silence where there is no database."""

    def completed(line: str, **environment: str) -> list[str]:
        with monkeypatch.context() as shell:
            for name, value in (_asked(line) | environment).items():
                shell.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main.app([], prog_name="vecferry", standalone_mode=False)
        shown = capsys.readouterr()
        assert (ended.value.code, shown.err) == (0, "")
        return shown.out.split()

    assert _complete("vecferry roll")[0] == completed("vecferry roll") == ["rollback"]
    assert completed("vecferry plan text") == ["text-384-to-1536"]
    assert completed("vecferry run chroma-to-pgvector -p chroma.pa") == ["chroma.path="]
    assert completed("vecferry status ") == []
    ledger_versions.ensure(connection)
    connection.execute("INSERT INTO vecferry.run (run_id, flow, plan) VALUES ('docs1', 'chroma-to-pgvector', '{}')")
    connection.execute("INSERT INTO vecferry.run (run_id, flow, plan) VALUES ('more2', 'chroma-to-pgvector', '{}')")
    for verb in ("status", "contract"):
        assert completed(f"vecferry {verb} do") == ["docs1"]
    away = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    result, seconds = _complete("vecferry status ", DATABASE_URL=away)
    assert result == []
    assert seconds < 20
    (tmp_path / "home" / "runs" / "kept").mkdir(parents=True)
    assert completed("vecferry status ", DATABASE_URL="", POSTGRES_URL="") == ["kept"]
    assert not (tmp_path / "home" / "postgres").exists()
    # By its name: what this process was started from need not be a shell.
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = subprocess.run([COMMAND, "--show-completion", "bash"], capture_output=True, text=True, env=named)
    assert "complete_bash" in shown.stdout


def test_plan_ends_with_the_command_that_does_it(vecferry: Vecferry, chroma_dir: Callable[..., str]) -> None:
    """With every parameter that was given, quoted for a shell: read back, it is the same plan."""
    given = (
        f"chroma.path={chroma_dir(name='my.docs', count=30)}",
        "collections=[my.docs]",
        "tables={my.docs: it's here}",
        "gates.min_recall=0.95",
        "cutover=auto",
        "batch_rows=10",
        "database='DATABASE_URL'",
    )
    options = [word for value in given for word in ("-p", value)]
    code, out, err = vecferry("plan", "chroma-to-pgvector", *options)
    assert code == 0, err
    following = out.splitlines()[-1].removeprefix("next    ")
    words = shlex.split(following)
    assert words[:3] == ["vecferry", *RUN]
    second = json.loads(vecferry("plan", *words[2:], "--json")[1])
    first = json.loads(vecferry("plan", "chroma-to-pgvector", *options, "--json")[1])
    assert second == {**first, "seconds": second["seconds"]}
    assert second["next"] == following
    assert "cutover=auto" in words
    assert "gates.min_recall=0.95" in words
    assert """tables={"my.docs": "it's here"}""" in words


def test_a_command_is_read_back_as_what_it_was_made_of() -> None:
    """Whatever YAML and a shell would make of the values."""
    parameters = ChromaToPgvector.model_validate(
        {
            "chroma": {"host": "h", "port": 8001, "ssl": True, "tenant": "no"},
            "collections": ["null", "a b", "it's"],
            "schema": "2024",
            "tables": {"docs": "yes", "more": "1e3", "third": "a: b", "fourth": '$HOME `x` "y" é'},
            "gates": {"min_recall": 0.5, "max_quarantined": 3},
            "batch_ids": [1, 2],
            "budget_usd": 0.5,
            "run_id": "r-1",
        }
    )
    words = shlex.split(commands.run_command("chroma-to-pgvector", parameters))
    assert words[:3] == ["vecferry", *RUN]
    given = [value for option, value in pairwise(words) if option == "-p"]
    assert parse(ChromaToPgvector, {**arguments.pairs(given), "run_id": words[-1]}) == parameters
    assert commands.not_frozen(parameters) == ["-p", "gates.min_recall=0.5", "-p", "gates.max_quarantined=3"]


def test_a_plan_with_problems_has_no_next(
    vecferry: Vecferry, chroma_dir: Callable[..., str], connection: Connection
) -> None:
    """The last line says what to do instead."""
    connection.execute("CREATE TABLE docs (precious text)")
    options = ("plan", "chroma-to-pgvector", "-p", f"chroma.path={chroma_dir(count=30)}")
    code, out, err = vecferry(*options)
    assert code == 2
    assert "vecferry run" not in out
    assert err.strip().endswith("solve the problem above, then plan again")
    assert json.loads(vecferry(*options, "--json")[1])["next"] is None


def test_a_table_of_checks_for_each_target_and_what_contract_asks(
    vecferry: Vecferry, chroma_dir: Callable[..., str], connection: Connection, prefect: None
) -> None:
    """Every target's checks stand under its name; what another cutover would need is dropped only where that is meant."""
    chroma_dir(name="docs", count=30)
    source = chroma_dir(name="more", count=20)
    quarantined = ("-p", "gates.max_quarantined=9", "-p", "cutover=auto")
    code, out, err = vecferry(*RUN, "-p", f"chroma.path={source}", "--run-id", "two", *quarantined)
    assert code == 0, err
    first, second = out.index("docs → public.docs\n"), out.index("more → public.more\n")
    assert first < out.index("30 stored") < second < out.index("20 stored")
    assert vecferry("rollback", "two")[0] == 0

    shadows = "SELECT count(*) FROM vecferry.relation WHERE role = 'shadow'"
    code, _, err = vecferry("contract", "two")
    assert code == 2
    assert "public.docs, public.more" in err
    assert err.strip().endswith("vecferry contract two --yes")
    with terminal("contract", "two") as shown:
        shown.wait_for("Drop it?")
        shown.type("n\n")
        assert shown.ended() == 1
    assert "nothing was dropped" in shown.shown
    assert ledger.get(connection, "two").state == "rolled_back"
    assert connection.execute(shadows).fetchone() == (2,)
    assert vecferry("contract", "two", "--yes")[0] == 0
    assert connection.execute(shadows).fetchone() == (0,)


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize(
    "verb",
    sampled(
        ("run", "rerun", "cutover", "catch-up", "verify", "rollback", "contract", "restore"),
        "run",
        "cutover",
    ),
)
def test_a_prefect_server_that_is_away(
    vecferry: Vecferry, chroma_dir: Callable[..., str], connection: Connection, nowhere: str, verb: str
) -> None:
    """One line that names PREFECT_API_URL and where it leads, without the password."""
    source = chroma_dir(count=20)
    ledger_versions.ensure(connection)
    arguments = ["chroma-to-pgvector", "-p", f"chroma.path={source}"] if verb == "run" else ["one"]
    if verb != "run":
        _a_run(connection, source)
    started = time.monotonic()
    code, out, err = vecferry(verb, *arguments, *(["--batch", "0"] if verb == "rerun" else []))
    assert code == 2
    assert time.monotonic() - started < 20
    assert len(err.strip().splitlines()) == 1
    assert f"answers at {nowhere.replace('me:geheim@', '')}, where PREFECT_API_URL points" in err
    assert "geheim" not in out + err


def _a_run(connection: Connection, source: str) -> None:
    """The plan of a run, as the ledger has it before anything else."""
    parameters = ChromaToPgvector.model_validate({"chroma": {"path": source}})
    begin(parameters.request(), "one", parameters.given())
    checkpoints.add(connection, "one", "snapshot", [(0, Cut(0, 0, "ids", 0))])


def test_the_speed_of_a_stage() -> None:
    """Rows a second and the time left are those since this command began to watch; nothing is said where nothing tells."""
    first = Reading("load", 10, 40, 1_000, at=100.0)
    assert speed(first, first) == (None, None)
    assert speed(first, Reading("load", 20, 40, 3_000, at=104.0)) == (500.0, 8.0)
    assert speed(first, Reading("load", 40, 40, 7_000, at=112.0)) == (500.0, None)
    assert speed(Reading("index", 0, 2, 0, at=0), Reading("index", 0.5, 2, 250, at=5)) == (50.0, 15.0)


def _model_of(field: dict[str, object], schema: dict[str, dict[str, object]]) -> BaseModel | None:
    text = json.dumps(field)
    named = re.search(r"#/\$defs/(\w+)", text)
    result = schema["$defs"][named[1]] if named else None
    return result if result and "properties" in result else None  # type: ignore[return-value, operator]
