"""Every message that counts, as the syntax trees of the code have it, reads as English with none, one and two."""

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tasks.base import words
from tasks.base.words import agreeing, counted, plural
from tests.helpers import sources

ROOT = Path(__file__).parents[2]
HELPERS = {"counted": counted, "plural": plural, "agreeing": agreeing}
NUMERIC = {"len", "sum", "round", "int", "float", "max", "min", "abs"}
"""Functions whose result is a number."""
AFTER_A_NUMBER = {
    "of",
    "to",
    "in",
    "and",
    "on",
    "more",
    "instead",
    "compared",
    "quarantined",
    "unchanged",
    "taken",
    "stored",
    "could",
    "wrong",
}
"""Words that are the same after one and after many."""
NAMING = {"port", "version", "number"}
"""Numbers of which a thing is called, and which count nothing."""
PLURAL_VERBS = ("are", "were", "have", "differ", "belong", "use", "exist", "do", "take", "hold", "lie")
LAYOUT = re.compile(r"^\s*[\w.]+ {2,}|\n {2,}|^ {2,}| {2,}$", re.M)
"""Names of lines and columns, which are padded."""
LOOSE = re.compile(r" [,;:.](?: |$)|\(s\)|\S {2,}(?!-- )\S")
SQL = re.compile(r"\b(?:SELECT|FROM|WHERE|SET)\b")


@dataclass(frozen=True)
class Message:
    place: str
    expression: ast.expr
    names: dict[str, ast.expr]
    """What the names of its function were given, where that is a message itself."""


@cache
def _counts() -> frozenset[str]:
    """Names that hold numbers: every name, attribute and function that is annotated as one, or given what is one, and is
    nowhere a text."""
    kinds: dict[str, set[str]] = {}
    for _, tree in sources.modules("tasks", "flows"):
        for node in sources.nodes(tree):
            match node:
                case (
                    ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name), annotation=ast.expr() as kind)
                    | ast.arg(arg=name, annotation=ast.expr() as kind)
                    | ast.FunctionDef(name=name, returns=ast.expr() as kind)
                ):
                    kinds.setdefault(name, set()).update(ast.unparse(kind).split(" | "))
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id=called))):
                    kinds.setdefault(name, set()).update({"int"} if called in NUMERIC else ())
    return frozenset(name for name, kind in kinds.items() if kind & {"int", "float"} and "str" not in kind) - NAMING


@cache
def _modules() -> list[sources.Module]:
    return [m for m in sources.modules("tasks", "flows") if ROOT / m.path != Path(words.__file__)]


def _messages() -> Iterator[Message]:
    """Every piece of text that is put together from parts."""
    for path, tree in _modules():
        for function in [tree, *(n for n in sources.nodes(tree) if isinstance(n, ast.FunctionDef))]:
            own = list(_own(function))
            names = dict(pair for n in own if isinstance(n, ast.Assign) for pair in _assigned(n) if _is_words(pair[1]))
            inner = {id(part) for n in own if _is_text(n) for part in ast.walk(n) if part is not n}
            for node in own:
                if _is_text(node) and id(node) not in inner:
                    yield Message(f"{path}:{node.lineno}", node, names)  # type: ignore[attr-defined, arg-type]


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function or module without those of the functions in it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _own(child)


def _assigned(node: ast.Assign) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, value
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
            yield from (
                (name.id, value) for name, value in zip(names, values, strict=True) if isinstance(name, ast.Name)
            )


def _is_words(node: ast.AST) -> bool:
    """A message, or a piece of one without a number."""
    match node:
        case ast.Constant(value=str()) | ast.IfExp(body=ast.Constant(value=str()), orelse=ast.Constant(value=str())):
            return True
    return _is_text(node)


def _is_text(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr():
            return True
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _is_text(left) or _is_text(right)
        case ast.IfExp(body=body, orelse=other):
            return _is_text(body) or _is_text(other)
        case ast.Call(func=ast.Name(id="counted" | "plural" | "agreeing")):
            return True
    return False


def _renders(node: ast.expr, count: int, message: Message, numbers: frozenset[str]) -> list[str]:
    """All that the expression can come to, with ``count`` for every number in it."""
    match node:
        case ast.Constant(value=str(text)):
            return [re.sub(r"\d", "9", text)]
        case ast.JoinedStr(values=parts):
            rendered = [_renders(part, count, message, numbers) for part in parts]
            for at, part in enumerate(parts[2:]):  # a number that the noun after it goes with
                if ast.unparse(part).startswith("{plural("):
                    rendered[at] = [str(count)]
            return [*map("".join, itertools.product(*rendered))]
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            both = itertools.product(*(_renders(side, count, message, numbers) for side in (left, right)))
            return [*map("".join, both)]
        case ast.IfExp(body=body, orelse=other):
            return [*_renders(body, count, message, numbers), *_renders(other, count, message, numbers)]
        case ast.Call(func=ast.Name(id="counted" | "plural" | "agreeing" as name), args=[_, *args]):
            given = [ast.literal_eval(arg) if isinstance(arg, ast.Constant) else "row" for arg in args]
            return [HELPERS[name](count, *given)]
        case ast.FormattedValue(value=ast.Name(id=name)) if name in message.names:
            return _renders(message.names[name], count, Message(message.place, node, {}), numbers)
        case ast.FormattedValue(value=value, format_spec=spec):
            shown = "".join(part.value for part in ast.walk(spec) if isinstance(part, ast.Constant)) if spec else ""
            if _counts_something(value, shown, numbers):
                return [str(count)]
            return _renders(value, count, message, numbers)
    return ["NAME"]


def _counts_something(value: ast.expr, shown: str, numbers: frozenset[str]) -> bool:
    """Whether a number of things is printed; a share, a threshold, a sum of money or a moment is none."""
    if any(mark in shown for mark in ("f", "%", "e", "g")):
        return False
    match value:
        case ast.Call(func=ast.Name(id=name)):
            return name in NUMERIC or name in numbers
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in numbers or "," in shown
    return "," in shown


def faults(text: str) -> list[str]:
    """What is wrong with a message in which every number is 0, 1 or 2."""
    wrong = [
        f"{number} {noun}"
        for number, noun in re.findall(r"(?<![\w/.@])([012]) ([a-z][a-z/]*)", text)
        if not _goes(number, noun)
    ]
    nouns = re.findall(r"NAME (?!points to\b)([a-z]+)\b(?!/)", text)  # an alias points: no point is counted
    wrong += [noun for noun in nouns if noun in _nouns()[1] - _nouns()[0]]
    wrong += re.findall(rf"\b1 \w+ (?:{'|'.join(PLURAL_VERBS)})\b", text)
    wrong += re.findall(r"\b[02] \w+ (?:is|was|has|differs|belongs)\b", text)
    wrong += LOOSE.findall(LAYOUT.sub("", text))
    return wrong


def _goes(number: str, word: str) -> bool:
    """Whether the word may follow the number: one that never changes, or one in the right form."""
    return word in AFTER_A_NUMBER or word in _nouns()[0 if number == "1" else 1]


@cache
def _nouns() -> tuple[frozenset[str], frozenset[str]]:
    """The nouns that the code counts, first words of the phrases that it hands to the helpers: in singular and in plural."""
    phrases = {
        argument.value
        for _, tree in _modules()
        for call in sources.nodes(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("counted", "plural")
        for argument in call.args[1:2]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    } | {"row"}
    return tuple(frozenset(plural(n, phrase).split()[0] for phrase in phrases) for n in (1, 2))  # type: ignore[return-value]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_every_message_that_counts(count: int) -> None:
    """Nouns and verbs go with their number, whatever counts; a number that is printed beside a noun went through the helper;
    and there is no doubled space, no space before a comma, and no “(s)”."""
    numbers, bad, seen = _counts(), list[str](), 0
    for message in _messages():
        for text in set(_renders(message.expression, count, message, numbers)):
            print(f"{message.place}: {text}")  # for whoever reads them aloud, with pytest -s
            seen += bool(re.search(rf"\b{count}\b", text))
            bad += [f"{message.place}: {fault!r} in {text!r}" for fault in faults(text)]
    assert not bad, "\n".join(bad)
    assert seen > 100


@pytest.mark.parametrize(
    "text",
    [
        "1 rows",
        "2 row",
        "1 row were lost",
        "0 rows was",
        "1 batches failed",
        "1 widgets",
        "run x is done , then",
        "run x is  done",
        "row(s)",
    ],
)
def test_what_is_wrong_is_seen(text: str) -> None:
    """The rules find what they are for."""
    assert faults(text)


def test_templates_and_log_lines_count_through_the_helper() -> None:
    """A placeholder of the report's template, or of a line for the log, has no noun of its own behind it."""
    template = (ROOT / "tasks/checks/report.html.j2").read_text()
    nouns = re.findall(r"\{\{ (?!counted|agreeing)[^}]*\}\} ([a-z]{2,})", template)
    assert [noun for noun in nouns if noun not in AFTER_A_NUMBER] == []
    assert [text for text in _constants() if re.search(r"%d [a-z]", text)] == []


def test_no_text_has_loose_spaces_or_marks() -> None:
    """None between a word and a comma, no two where one will do, and no “(s)”, in whatever does not count either."""
    assert [text for text in _constants() if not SQL.search(text) and LOOSE.search(LAYOUT.sub("", text))] == []


def test_no_text_says_it_as_another_language_would() -> None:
    """“NAME is no file”, “it is searched no more”, “it is written anew”."""
    foreign = re.compile(r"(?<!there )\b(?:is|are) no (?!longer\b)[a-z]+|\b[a-z]+ed no more\b|\banew\b")
    assert [text for text in _constants() if not SQL.search(text) and foreign.search(text)] == []


def test_words_that_go_with_a_number_come_from_the_helper() -> None:
    """``{'is' if rows == 1 else 'are'}`` is ``agreeing``, whose result the test above reads with none, one and two."""
    pairs = {(singular, several) for several, singular in words.SINGULAR.items()}
    wrong = [
        f"{path}:{node.lineno}"
        for path, tree in _modules()
        for node in sources.nodes(tree)
        if isinstance(node, ast.IfExp)
        and (getattr(node.body, "value", None), getattr(node.orelse, "value", None)) in pairs
    ]
    assert wrong == []


def _constants() -> Iterator[str]:
    """Every text in the code that has words, docstrings aside."""
    for _, tree in _modules():
        described = {id(node.value) for node in sources.nodes(tree) if isinstance(node, ast.Expr)}
        for node in sources.nodes(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described:
                yield from [node.value] if re.search(r"[a-z]", node.value) else []


def test_commands_that_are_told_can_be_typed() -> None:
    """The name of a model may have a ? and an &, which a shell takes for something else: it is quoted where it has to be."""
    unquoted = re.compile(r"(?:(?:vecferry models \w+|\{SETUP\}) |-p target_model=)\{(?!(?:words\.)?typed\()")
    lines = [
        f"{path}:{number}"
        for folder in ("tasks", "flows")
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if unquoted.search(line)
    ]
    assert lines == []
