"""The pages tell all that there is to be typed and set, and nothing that is not there."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from flows.command import demos, fields
from flows.command.arguments import pairs
from flows.command.main import app
from flows.forms.form import parse
from flows.forms.registry import FLOWS
from flows.forms.shared import Base
from tasks.base.errors import UsageError
from tests.helpers import sources

ROOT = Path(__file__).parent.parent
GROUPED = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = {
    " ".join(filter(None, [name, verb])): command
    for name, group in GROUPED.items()
    for verb, command in {"": group, **getattr(group, "commands", {})}.items()
}
"""With those of a group by both their names: `models init`."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deployments/README.md"]
"""Where a user looks."""
SHOWN = [*PAGES, ROOT / "CONTRIBUTING.md"]
CODE = re.compile(r"^(?: {4}|\t).*$|`[^`\n]+`", re.MULTILINE)
"""A line of a block, or what stands in backticks."""
TYPED = re.compile(r"(?<![\w/.-])vecferry +((?:--|-h|[a-z]).*)")
"""What follows the name of the command in a line of code."""
SETTING = re.compile(r"\bVECFERRY_[A-Z_]+")
PATH = re.compile(r"(?<![\w./])(?:flows|tasks|sql|tests|benchmarks|deployments|docs)/[\w.*/-]*")
"""A file or folder of the repository."""
MODULE = re.compile(r"python -m ((?:flows|tests|benchmarks)[\w.]*)")
PLACEHOLDER = re.compile(r"\[?[A-Z]+\]?|…")


@cache
def code(page: Path) -> list[str]:
    """The pieces of code on a page."""
    return [piece.strip("` \t") for piece in CODE.findall(page.read_text())]


@cache
def words() -> set[str]:
    """All that stands in code on any page, cut at what no name has."""
    return {word.strip(".") for page in PAGES for piece in code(page) for word in re.split(r"[^\w.\[\]-]+", piece)}


@cache
def forms() -> dict[str, type[BaseModel]]:
    """Every form that a flow shows: those of the migrations by their flows, the others by their classes."""

    def leaves(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        below = [form for form in model.__subclasses__() if form.__module__.startswith("flows.")]
        for form in below:
            yield from leaves(form)
        if not below:
            yield model

    return FLOWS | {form.__name__: form for form in leaves(Base) if form not in FLOWS.values()}


@cache
def settings(*folders: str) -> set[str]:
    """The environment variables that the code, or that of these folders, asks for by a name that it knows, itself or by what asks
    for those it is handed."""
    trees = dict(sources.modules(*folders or ("flows", "tasks")))
    constants = {path: dict(_constants(tree)) for path, tree in trees.items()}
    anywhere = {name: value for of_module in constants.values() for name, value in of_module.items()}
    asking = {
        f.name for tree in trees.values() for f in sources.nodes(tree) if isinstance(f, ast.FunctionDef) and _asks(f)
    }
    asked = set()
    for path, tree in trees.items():
        for name in _names(tree, asking):
            known = {**anywhere, **constants[path]}
            text = getattr(name, "value", None) if isinstance(name, ast.Constant) else known.get(_last(name))
            asked |= {text} if isinstance(text, str) else set()
    return asked


@cache
def options() -> set[str]:
    """What the providers of models allow after the question mark: each says it in a tuple of its own."""
    statements = [statement for _, tree in sources.modules("tasks/embedders") for statement in tree.body]
    assigned = [s for s in statements if isinstance(s, ast.Assign) and _last(s.targets[0]) == "OPTIONS"]
    return {option for statement in assigned for option in ast.literal_eval(statement.value)}


@cache
def names_of_tests() -> set[str]:
    """The names of all tests."""
    return {name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            yield from ((_last(target), statement.value.value) for target in statement.targets)


def _asks(function: ast.FunctionDef) -> bool:
    """Whether the environment is asked for the function's own first argument."""
    first = [argument.arg for argument in function.args.args[:1]]
    return any(isinstance(name, ast.Name) and name.id in first for name in _names(function, set()))


def _names(tree: ast.AST, asking: set[str]) -> Iterator[ast.expr]:
    """What the environment is asked for."""
    for node in sources.nodes(tree):
        if isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            if called in ("os.environ.get", "os.getenv") or called.rpartition(".")[2] in asking:
                yield node.args[0]
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            if ast.unparse(node.value) == "os.environ":
                yield node.slice
        elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) == "os.environ":
            yield node.left


def _last(name: ast.AST) -> str:
    """``settings.HOME`` and ``HOME`` are both HOME."""
    return ast.unparse(name).rpartition(".")[2]


def typed(page: Path) -> Iterator[list[str]]:
    """The commands on a page, word by word; an example that a shell would not read is cut at its spaces."""
    for piece in code(page):
        for line in TYPED.findall(re.sub(r"\s#\s.*", "", piece)):  # without the comments of a shell
            try:
                yield shlex.split(line)
            except ValueError:
                yield line.split()


def test_every_command_and_option_stands_in_a_page() -> None:
    """What `vecferry --help` lists is found by who searches the pages for it."""
    lines = [line for page in PAGES for line in typed(page)]
    assert COMMANDS
    assert [name for name in COMMANDS if not any(line[: len(name.split())] == name.split() for line in lines)] == []
    options = {option for command in COMMANDS.values() for p in command.params for option in p.opts if option[0] == "-"}
    assert sorted(options - words()) == []


@pytest.mark.parametrize("flow", demos.names())
def test_every_demo_stands_in_a_page(flow: str) -> None:
    """The first one by the command alone, the others by the names of their migrations."""
    called = ["demo"] if flow == demos.FIRST else ["demo", flow]
    assert any(line == called for page in PAGES for line in typed(page))


@pytest.mark.parametrize("form", forms())
def test_every_parameter_stands_in_a_page(form: str) -> None:
    """By its whole name, as `vecferry params` prints it and `-p` takes it."""
    names = {parameter.name for parameter in fields.parameters(forms()[form])}
    assert names
    assert sorted(names - words()) == []


def test_every_setting_stands_in_a_page() -> None:
    """Each environment variable that is read, by the code or by compose.yaml."""
    composed = set(re.findall(r"\$\{(\w+)", (ROOT / "deployments/compose.yaml").read_text()))
    assert {"VECFERRY_HOME", "DATABASE_URL", "OPENAI_API_KEY", "PREFECT_API_URL"} <= settings()
    assert "POSTGRES_PASSWORD" in composed
    assert sorted((settings() | composed) - words()) == []


def test_every_option_of_a_model_stands_in_a_page() -> None:
    """``?dimensions=`` and its like."""
    assert options()
    assert sorted(options() - words()) == []


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_a_page_shows_commands_that_there_are(page: Path) -> None:
    """Command, flow and options."""
    everywhere = {"--version", "--install-completion", "--show-completion", "--help", "-h"}
    for name, *rest in typed(page):
        if name in everywhere:
            continue
        if rest and f"{name} {rest[0]}" in COMMANDS:
            name, rest = f"{name} {rest[0]}", rest[1:]
        assert name in COMMANDS, f"vecferry {name}"
        params = COMMANDS[name].params
        options = {option for p in params for option in p.opts} | everywhere
        assert [word for word in rest if re.match("--?[a-z]", word) and word not in options] == [], name
        if rest and any(p.name == "flow" for p in params):
            assert rest[0] in FLOWS or PLACEHOLDER.fullmatch(rest[0]), f"vecferry {name} {rest[0]}"


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_a_page_shows_targets_of_make_that_there_are(page: Path) -> None:
    """`make demo` and its like."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {target for piece in code(page) for target in re.findall(r"^(?:\$ )?make (\w+)", piece)}
    assert sorted(shown - targets) == []


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_a_page_shows_parameters_that_there_are(page: Path) -> None:
    """Each `-p` by itself, with its value: the flow's on the line, any one's where no flow is named."""
    for piece in code(page):
        flow = next((name for name in FLOWS if re.search(rf"\b{name}\b", piece)), None)
        for given in re.findall(r"-p +('[^']*'|\S+=\S+)", piece):
            candidates = [FLOWS[flow]] if flow else forms().values()
            assert any(_is_taken(form, given.strip("'")) for form in candidates), f"-p {given}"


def _is_taken(form: type[BaseModel], given: str) -> bool:
    needed = {name: "x" for name, field in form.model_fields.items() if field.is_required()}
    try:
        parse(form, needed | pairs([given]))
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("flow", FLOWS)
def test_the_table_of_a_migration_lists_parameters_that_there_are(flow: str) -> None:
    """The first cells of the table that is headed `parameter`, on the migration's own page."""
    table = re.search(r"^\| parameter \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", (ROOT / f"docs/{flow}.md").read_text(), re.M)
    assert table
    listed = {name for row in table[1].splitlines() for name in re.findall("`(.+?)`", row.split("|")[1])}
    assert sorted(listed - {parameter.name for parameter in fields.parameters(FLOWS[flow])}) == []


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_a_page_shows_settings_that_there_are(page: Path) -> None:
    """A setting of ours that nothing reads is a promise that nothing keeps. Contributors, and who measures, set what the tests read too."""
    read = settings() | (settings("tests") if page.name in ("CONTRIBUTING.md", "benchmarks.md") else set())
    assert sorted(set(SETTING.findall(page.read_text())) - read) == []


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_a_page_shows_files_that_there_are(page: Path) -> None:
    """Paths of the repository, modules that Python is to run, and where links lead; NAME in a path is for the reader to fill in."""
    paths = {
        path.rstrip("./") for piece in code(page) for path in PATH.findall(piece) if not re.search("[A-Z]{4}", path)
    }
    modules = {name.replace(".", "/") for piece in code(page) for name in MODULE.findall(piece)}
    missing = [path for path in paths if not any(ROOT.glob(path))]
    missing += [name for name in modules if not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists()]
    missing += [
        link for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()) if not (page.parent / link).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_a_page_names_tests_that_there_are(page: Path) -> None:
    """What is said to hold a promise does."""
    assert sorted(set(re.findall(r"`(test_\w+)`", page.read_text())) - names_of_tests()) == []
