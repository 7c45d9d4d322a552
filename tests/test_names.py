"""Names are nouns and verbs of the field, which can be searched for."""

import ast
from collections.abc import Iterator

from tests.helpers import sources

NAME_NOTHING = {"found", "said", "again", "held", "how", "mine", "ours", "these"}


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and names of what is defined: variables, parameters, functions, classes, fields, imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.alias(asname=name) if name:
                yield node.lineno, name


def test_no_name_names_nothing() -> None:
    """In the program, its benchmarks and its tests."""
    wrong = [
        f"{path}:{line}: {name}"
        for path, tree in sources.modules("tasks", "flows", "sql", "benchmarks", "tests")
        for line, name in named(tree)
        if name.strip("_") in NAME_NOTHING
    ]
    assert wrong == []


def test_every_way_to_name_something_is_seen() -> None:
    """A variable, a parameter, a function, a field, an import, an error, a case, a walrus, a loop and a with."""
    text = """
def a(b, *, c=1, **d): ...
class E:
    f: int = 0
    def g(self): self.h = 1
import x as i
try: pass
except ValueError as j: pass
match z:
    case [*k]: pass
    case l: pass
if (m := 1): pass
for n in z: pass
with z as o: pass
p, (q, r) = z
s = [t for t in z]
"""
    assert {name for _, name in named(ast.parse(text))} >= set("abcdEfghijklmnopqrst")
