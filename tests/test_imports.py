"""Imports run one way, so that each part can be read knowing only what stands below it."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import pytest

from tests.helpers import sources

ROOT = sources.ROOT
LAYERS = (
    {"sql"},
    {"base"},
    {"embedders"},
    {"stores"},
    {"contents"},
    {"runs"},
    {"serving"},
    {"shadows"},
    {"checks"},
    {"planning"},
    {"stages"},
    {"flows"},
)
"""From below to above; a layer imports itself and what is below it."""
STAGES = {"begin", "snapshot", "load", "index", "catch_up", "verify", "cutover", "restore"}
VENDORS = (
    "psycopg",
    "pgvector",
    "chromadb",
    "qdrant_client",
    "openai",
    "torch",
    "torchvision",
    "timm",
    "sentence_transformers",
)
MOST_LINES, MOST_PARAMETERS = 300, 7
LAZY = re.compile(r"^flows/command/|^flows/client\.py$|^flows/forms/form\.py$|^tasks/base/settings\.py$")
"""Where a module may be imported inside a function: the command imports what a verb needs, and the client, a form and the settings
do without Prefect where it is not asked."""


def modules() -> tuple[sources.Module, ...]:
    return sources.modules("tasks", "flows", "sql")


@cache
def imported(tree: ast.AST) -> tuple[tuple[int, str], ...]:
    """Lines and names of what is imported, be it by a call with its name."""
    return tuple(_imported(tree))


def _imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in sources.nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield node.lineno, module
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case ast.ImportFrom(module=module, level=level):
                yield node.lineno, "." * level + (module or "")
            case ast.Call(func=called, args=[ast.Constant(value=str(name)), *_]):
                if ast.unparse(called).endswith(("import_module", "__import__")):
                    yield node.lineno, name


def part_of(name: str) -> str | None:
    """The part that a dotted name or a path belongs to."""
    match name.removesuffix(".py").replace("/", ".").split("."):
        case ["flows", *_]:
            return "flows"
        case ["sql", *_]:
            return "sql"
        case ["tasks", part, *_]:
            return "stages" if part in STAGES else part
    return None


def level(part: str) -> int:
    return next(at for at, layer in enumerate(LAYERS) if part in layer)


def test_a_file_of_tasks_is_a_stage_and_nothing_else_is() -> None:
    """A newcomer reads the migration off the listing."""
    assert {path.stem for path in (ROOT / "tasks").glob("*.py")} == STAGES | {"__init__"}
    assert {p.name for p in (ROOT / "tasks").iterdir() if p.is_dir() and p.name[0] != "_"} == {
        part for layer in LAYERS[1:-2] for part in layer
    }


def test_the_tests_of_a_folder_stand_in_one_of_its_name() -> None:
    """Beside them `flows`, kills, helpers and fixtures."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name[0].isalpha()}
    assert folders == {part for layer in LAYERS[1:-2] for part in layer} | {"flows", "kill", "helpers", "fixtures"}


def test_imports_run_one_way() -> None:
    """base ← embedders ← stores ← contents ← runs ← serving ← shadows ← checks ← planning ← stages ← flows."""
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules()
        for line, name in imported(tree)
        if (own := part_of(path)) and own != "__init__"
        if (other := part_of(name)) and other != own and level(other) >= level(own)
    ]
    assert wrong == []


def test_imports_name_the_whole_way() -> None:
    """What imports a module is found by who searches for its name, and by the tests here."""
    assert [f"{path}:{line}" for path, tree in modules() for line, name in imported(tree) if name[0] == "."] == []


def test_stages_and_checks_know_no_vendor() -> None:
    """What they need of one is asked of a place, of records, or of the run."""
    roles = {"stores", "shadows", "embedders", "contents"}
    allowed = {"interface", "registry", "records", "exact_search", "canonical", "difference", "pictures", "place"}
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules()
        if part_of(path) in ("stages", "checks")
        for line, name in imported(tree)
        if name.split(".")[0] in VENDORS or (part_of(name) in roles and {*name.split(".")[2:3]} - allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendors_client_is_imported_in_its_own_folder_only(vendor: str) -> None:
    """chromadb in stores/chroma, openai in embedders/openai, …; PostgreSQL also where the ledger is."""
    homes = {
        "psycopg": r"sql/|tasks/(stores/postgres|shadows/postgres|runs|serving|planning)/|tasks/base/error_messages\.py|flows/command/",
        "chromadb": r"tasks/stores/chroma/",
        "qdrant_client": r"tasks/(stores|shadows)/qdrant/",
        "openai": r"tasks/embedders/openai/",
        "torch": r"tasks/embedders/(local|sentence_transformers|timm)/",
        "torchvision": r"tasks/embedders/local/torchvision_repair\.py",
        "timm": r"tasks/embedders/timm/",
        "sentence_transformers": r"tasks/embedders/sentence_transformers/",
    }
    home = re.compile(homes.get(vendor, r"$^"))
    assert [f"{path}:{line}" for path, tree in modules() for line, name in imported(tree)
            if name.split(".")[0] == vendor and not home.match(path)] == []  # fmt: skip


def test_no_import_inside_a_function_hides_a_circle() -> None:
    """Only what is asked for by name, or is slow to import, is imported late."""
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in modules()
        if not LAZY.search(path)
        for function in sources.nodes(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for line, name in imported(function)
        if name.split(".")[0] in ("tasks", "flows", "sql")
    ]
    assert wrong == []


def test_facts_are_asked_for_and_no_kinds() -> None:
    """Whether something is a target, a request or an embedder of some class is for nobody to ask; nor of what kind a place or a
    content is, or a source's store, or which flow this is."""
    classes = re.compile(r"isinstance\([^)]*(Target|Request|Embedder|Place)|\.mode\b|== CARRIED")
    kinds = re.compile(r"\b(place|content)\.kind$|\bsource\['store'\]$|\.flow$")
    wrong = []
    for path, tree in modules():
        for node in sources.nodes(tree):
            match node:
                case ast.Call(func=ast.Name(id="isinstance")) | ast.Attribute(attr="mode"):
                    asked = bool(classes.search(ast.unparse(node)))
                case ast.Compare(left=left, comparators=[*others]):
                    sides = [ast.unparse(side) for side in (left, *others)]
                    same = all(kinds.search(side) for side in sides)  # of two of them, whether they are alike
                    named = any(map(kinds.search, sides)) and not same and not path.endswith("/registry.py")
                    asked = "CARRIED" in sides or named
                case ast.Match(subject=subject):
                    asked = bool(kinds.search(ast.unparse(subject)))
                case ast.Subscript(slice=key):
                    asked = bool(kinds.search(ast.unparse(key))) and not path.endswith("/registry.py")
                case _:
                    asked = False
            if asked and not path.startswith(
                ("tasks/contents/", "tasks/embedders/pictures.py")
            ):  # a picture has a mode
                wrong.append(f"{path}:{node.lineno}: {ast.unparse(node)}")
    assert wrong == []


def test_no_function_takes_more_than_one_can_keep_in_mind() -> None:
    """Seven parameters at most, besides the options of a command, which are typed by name."""
    wrong = [
        f"{path}:{function.lineno} {function.name}"
        for path, tree in modules()
        for function in sources.nodes(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and len(_parameters(function)) > MOST_PARAMETERS
    ]
    assert wrong == []


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    a = function.args
    own = (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))
    option = re.compile(r"\btyper\.")
    return [p.arg for p in own if p.arg not in ("self", "cls") and not option.search(ast.unparse(p.annotation or p))]


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    """One thing a module, in 300 lines at most."""
    lengths = {
        path.relative_to(ROOT).as_posix(): path.read_text().count("\n")
        for folder in ("tasks", "flows", "sql")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert len(lengths) > 100
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


REGISTRIES = {
    "flows/client.py": {"_clients"},
    "flows/command/show/terminal.py": {"passing"},
    "tasks/embedders/openai/server.py": {"_servers"},
    "tasks/embedders/sentence_transformers/model.py": {"_loaded"},
    "tasks/embedders/local/torchvision_repair.py": {"_kept"},
    "tasks/embedders/timm/model.py": {"_loaded"},
    "tasks/runs/holding.py": {"_before"},
    "tasks/runs/run.py": {"_owned", "_keepers", "_let_go"},
    "tasks/stores/chroma/client.py": {"_REACHED"},
    "tasks/stores/chroma/copy_folders.py": {"_created", "_own"},
    "tasks/stores/chroma/private_copy.py": {"_newest"},
    "tasks/stores/chroma/server.py": {"_MOST"},
    "tasks/stores/memory.py": {"_NAMED"},
    "tasks/stores/postgres/connection.py": {"_REACHED"},
    "tasks/stores/postgres/embedded.py": {"_servers"},
    "tasks/stores/postgres/pace.py": {"_paces"},
    "tasks/stores/qdrant/client.py": {"_directories", "_servers"},
}
"""What is process-wide and changes; all else that a run has in this process is its own (`Run.own`)."""


def test_what_is_process_wide_is_named_and_says_why() -> None:
    """A collection that a module fills while it works is in the list above, and a sentence stands below it."""
    filled: dict[str, set[str]] = {}
    silent = []
    empty = re.compile(r"\{\}|\[\]|(set|dict|list)\(\)|defaultdict\(\w*\)|Weak\w+\(\)")
    for path, tree in modules():
        for node, after in pairwise([*tree.body, None]):
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=ast.expr() as value):
                    fixed = ast.unparse(kind).startswith("Mapping")
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    fixed = False
                case _:
                    continue
            if empty.fullmatch(ast.unparse(value)) and not fixed:
                filled.setdefault(path, set()).add(name)
                if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
                    silent.append(f"{path}: {name}")
    assert filled == REGISTRIES
    assert silent == []
