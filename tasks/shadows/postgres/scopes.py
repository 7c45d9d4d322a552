"""Which column of which table a name means, within a statement: the scopes of SQL's FROM, WITH and subqueries.

It looks for one column of one table, and finds each mention of it, and each star that stands for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.shadows.postgres.assignments import assignments
from tasks.shadows.postgres.mentions import Columns, Item, Mention, Reading, Star, Table
from tasks.shadows.postgres.tree_names import fields_of, implied, listed, merges, output, strings
from tasks.stores.postgres.syntax import Node, Piece, walk

Relation = Callable[[str | None, str], "Table | None"]
"""Looks a table up by schema and name, as the function would."""
Scope = list[Item]
READ = (
    *("relation", "withClause", "fromClause", "usingClause", "sourceRelation", "selectStmt"),
    *("returningList", "returningClause"),
)
"""Parts of a statement that are no expressions by themselves."""
DISTANCES = frozenset({"<=>", "<->", "<#>", "<+>"})
"""pgvector's distances of vectors."""
FUNCTIONS = frozenset({"cosine_distance", "l2_distance", "inner_product", "l1_distance"})
"""The same as functions."""


def read(piece: Piece, column: str, relation: Relation) -> Reading:
    """What a statement says of a column of the table for which ``relation`` answers ``searched``."""
    reader = _Reader(relation, Reading(column))
    reader.statement(piece.tree, [], {}, outermost=True)
    return reader.reading


@dataclass(frozen=True)
class _Reader:
    relation: Relation
    reading: Reading

    def statement(self, tree: Node, outer: list[Scope], ctes: dict[str, Any], outermost: bool = False) -> Columns:
        """Reads any statement; returns the columns of its result."""
        ((kind, node),) = tree.items()
        if kind == "SelectStmt":
            return self.select(node, outer, ctes, outermost)
        scope: Scope = []
        for key in ("relation", "fromClause", "usingClause", "sourceRelation"):
            for child in listed(node.get(key)):
                self.source(
                    {"RangeVar": child} if key == "relation" and "relname" in child else child, scope, outer, ctes
                )
        ctes = self.with_clause(node, outer, ctes)
        if scope and "relation" in node:
            self.reading.written.append(scope[0])
        if scope and scope[0].table:
            self.reading.assignments += assignments(kind, node, scope[0], self.reading.column)
        if "onConflictClause" in node:
            scope += [Item("excluded", item.columns) for item in scope[:1]]
        for key, child in node.items():
            if key not in READ:
                self.expression(child, [scope, *outer], ctes)
        if select := node.get("selectStmt"):
            self.statement(select, outer, ctes)
        columns: Columns = {}
        for target in node.get("returningList") or node.get("returningClause", {}).get("exprs", []):
            columns |= self.target(target["ResTarget"], [scope, *outer], ctes, outermost)
        return columns

    def select(self, node: Node, outer: list[Scope], ctes: dict[str, Any], outermost: bool = False) -> Columns:
        ctes = self.with_clause(node, outer, ctes)
        if node.get("op", "SETOP_NONE") != "SETOP_NONE":
            first = self.select(node["larg"], outer, ctes, outermost)
            self.select(node["rarg"], outer, ctes, outermost)
            for key in ("limitCount", "limitOffset"):
                self.expression(node.get(key), outer, ctes)
            return first
        scope: Scope = []
        scopes, conditions = [scope, *outer], list[Any]()
        for source in node.get("fromClause", []):
            self.source(source, scope, scopes, ctes, conditions)
        if any(i.table for i in scope):
            self.reading.grouped |= "groupClause" in node
            stars = any(fields_of(t["ResTarget"].get("val", {}))[0] == ("*",) for t in node.get("targetList", []))
            self.reading.merged |= stars and any(map(merges, node["fromClause"]))
        for condition in conditions:
            self.expression(condition, scopes, ctes)
        columns: Columns = {}
        for target in node.get("targetList", []):
            columns |= self.target(target["ResTarget"], scopes, ctes, outermost)
        for key, child in node.items():
            if key not in ("fromClause", "targetList", "withClause", "sortClause"):
                self.expression(child, scopes, ctes)
        for sort in node.get("sortClause", []):
            if output(sort["SortBy"]["node"]) not in columns:
                self.expression(sort, scopes, ctes)
        return columns

    def with_clause(self, node: Node, outer: list[Scope], ctes: dict[str, Any]) -> dict[str, Any]:
        clause = node.get("withClause")
        if not clause:
            return ctes
        ctes = dict(ctes)
        for cte in clause["ctes"]:
            query = cte["CommonTableExpr"]
            if clause.get("recursive"):
                ctes[query["ctename"]] = None
            ctes[query["ctename"]] = _renamed(
                self.statement(query["ctequery"], outer, ctes), strings(query.get("aliascolnames"))
            )
        return ctes

    def source(
        self, tree: Node, scope: Scope, outer: list[Scope], ctes: dict[str, Any], conditions: list[Any] | None = None
    ) -> None:
        """Adds what one item of a FROM names to its scope."""
        ((kind, node),) = tree.items()
        alias = node.get("alias", {})
        names = strings(alias.get("colnames"))
        if kind == "JoinExpr":
            self.source(node["larg"], scope, outer, ctes, conditions)
            self.source(node["rarg"], scope, outer, ctes, conditions)
            if conditions is not None and "quals" in node:
                conditions.append(node["quals"])
        elif kind == "RangeVar":
            self.table(node, alias.get("aliasname", node["relname"]), names, scope, ctes)
        elif kind == "RangeTableSample":
            self.source(node["relation"], scope, outer, ctes, conditions)
        elif kind == "RangeSubselect":
            columns = self.statement(node["subquery"], outer if node.get("lateral") else outer[1:], ctes)
            scope.append(Item(alias.get("aliasname", ""), _renamed(columns, names)))
        else:  # a function, a table of XML or JSON
            self.expression({k: v for k, v in node.items() if k != "alias"}, outer, ctes)
            scope.append(Item(alias.get("aliasname", ""), dict.fromkeys(names, False) if names else None))

    def table(self, node: Node, name: str, names: Sequence[str], scope: Scope, ctes: dict[str, Any]) -> None:
        schema = node.get("schemaname")
        if schema is None and node["relname"] in ctes:
            scope.append(Item(name, _renamed(ctes[node["relname"]], names)))
            return
        table = self.relation(schema, node["relname"])
        if table is None:
            scope.append(Item(name, None))
            return
        columns: Columns = {c: table.searched and c == self.reading.column for c in table.columns}
        item = Item(
            name, _renamed(columns, names), node if table.searched else None, schema if "alias" not in node else None
        )
        scope.append(item)
        if table.searched:
            self.reading.tables.append(item)

    def target(self, node: Node, scopes: list[Scope], ctes: dict[str, Any], outermost: bool) -> Columns:
        """Reads one column of a result, and says what it is called."""
        value = node.get("val", {})
        fields, location = fields_of(value)
        if fields and fields[-1] == "*":
            return self.star(fields, location, scopes[0], outermost)
        if fields:
            vectors = self.reference(fields, location, scopes, unnamed="name" not in node, outermost=outermost)
            return {node.get("name", fields[-1]): None if vectors else False}
        before, name = len(self.reading.mentions), implied(value)
        self.expression(value, scopes, ctes)
        if "name" in node:
            return {node["name"]: False}
        if any(m.itself and m.fields[-1] == name for m in self.reading.mentions[before:]):
            self.reading.named_after.append((node.get("location", 0), name))
        return {name: False}

    def star(self, fields: tuple[str, ...], location: int, scope: Scope, outermost: bool) -> Columns:
        items = [i for i in scope if len(fields) == 1 or i.name == fields[-2]]
        columns: Columns = {}
        for item in items:
            columns |= item.columns or {}
        if True in columns.values():
            self.reading.stars.append(Star(location, tuple(items), len(fields) > 1, outermost))
        return columns

    def expression(self, node: Any, scopes: list[Scope], ctes: dict[str, Any], compared: bool = False) -> None:
        if isinstance(node, list):
            for child in node:
                self.expression(child, scopes, ctes)
            return
        if not isinstance(node, dict):
            return
        for kind, child in node.items():
            if kind == "ColumnRef":
                fields, location = fields_of(node)
                if fields[-1] != "*":
                    self.reference(fields, location, scopes, compared)
            elif kind == "SelectStmt":
                self.select(child, scopes, ctes)
            elif kind == "TypeCast":
                self.expression(child["arg"], scopes, ctes, compared)
            elif kind == "FuncCall" and len(child.get("args", [])) == 2 and strings(child["funcname"])[-1] in FUNCTIONS:
                left, right = child["args"]
                self.distance({"name": child["funcname"], "lexpr": left, "rexpr": right}, scopes, ctes)
            elif kind == "A_Indirection":
                self.field(child, scopes)
                self.expression(list(child.values()), scopes, ctes)
            elif kind == "BoolExpr" and child["boolop"] == "OR_EXPR":
                self.alternatives(child["args"], [], scopes, ctes)
            elif kind == "CaseExpr":
                whens = [when["CaseWhen"] for when in child["args"]]
                conditions = [child.get("arg"), *(when["expr"] for when in whens)]
                results = [*(when["result"] for when in whens), *([child["defresult"]] if "defresult" in child else [])]
                self.alternatives(results, conditions, scopes, ctes)
            elif kind in ("CoalesceExpr", "MinMaxExpr", "NullTest") and child.get("nulltesttype") != "IS_NOT_NULL":
                mentioned = len(self.reading.mentions)
                self.expression(child, scopes, ctes)
                self.reading.of_nulls |= len(self.reading.mentions) > mentioned
            elif kind == "A_Expr" and strings(child.get("name"))[-1:] and strings(child["name"])[-1] in DISTANCES:
                self.distance(child, scopes, ctes)
            else:
                self.expression(child, scopes, ctes)

    def field(self, node: Node, scopes: list[Scope]) -> None:
        """Notes where the column is taken out of a whole row: (d).embedding."""
        names, (row, *rest) = strings(node.get("indirection")), fields_of(node["arg"])[0] or ("",)
        items = [i for scope in scopes for i in scope if not rest and i.name == row]
        self.reading.of_rows |= any(
            (i.columns or {}).get(name, False) is not False for i in items for name in names[:1]
        )

    def alternatives(
        self, parts: Sequence[Any], conditions: Sequence[Any], scopes: list[Scope], ctes: dict[str, Any]
    ) -> None:
        """Reads what decides by itself, in rows that may have no vector: each part of an OR, each result of a CASE."""
        self.expression(list(conditions), scopes, ctes)
        with_vector = without = False
        for part in parts:
            before = len(self.reading.mentions)
            self.expression(part, scopes, ctes)
            if any(m.item is item for m in self.reading.mentions[before:] for item in scopes[0]):
                with_vector = True
            else:
                without |= _names(conditions or part, scopes[0])
        self.reading.of_nulls |= with_vector and without

    def distance(self, node: Node, scopes: list[Scope], ctes: dict[str, Any]) -> None:
        before = len(self.reading.mentions)
        for side in ("lexpr", "rexpr"):
            self.expression(node.get(side), scopes, ctes, compared=True)
        if any(m.compared for m in self.reading.mentions[before:]):
            self.reading.compared_with += [node[s] for s in ("lexpr", "rexpr") if s in node]
        else:
            self.reading.other_distances.append((strings(node["name"])[-1], node))

    def reference(
        self,
        fields: tuple[str, ...],
        location: int,
        scopes: list[Scope],
        compared: bool = False,
        unnamed: bool = False,
        outermost: bool = False,
    ) -> bool:
        """Reads a name; returns whether it means the column."""
        item = _item(fields, scopes)
        if item is None:
            if len(fields) > 1:
                self.reading.others.append((location, fields))
            elif any(i.name == fields[0] and i.table for scope in scopes for i in scope):
                self.reading.whole_rows += 1
            return False
        kind = (item.columns or {}).get(fields[-1], False)
        if kind is not False:
            self.reading.mentions.append(Mention(location, fields, item, compared, unnamed, outermost, kind is True))
        return kind is not False


def _item(fields: tuple[str, ...], scopes: list[Scope]) -> Item | None:
    for scope in scopes:
        for item in scope:
            if len(fields) == 1:
                if item.columns and fields[0] in item.columns:
                    return item
            elif item.name == fields[-2] and (len(fields) == 2 or item.schema == fields[-3]):
                return item
    return None


def _names(tree: Any, scope: Scope) -> bool:
    """Whether it names a column of what is in the scope itself."""
    return any(kind == "ColumnRef" and _item(fields_of({kind: node})[0], [scope]) for kind, node in walk(tree))


def _renamed(columns: Columns | None, names: Sequence[str]) -> Columns | None:
    """The columns by the names that an alias gives to the first of them."""
    if columns is None or not names:
        return columns
    kept = list(columns.items())
    return dict([(name, old) for name, (_, old) in zip(names, kept, strict=False)] + kept[len(names) :])
