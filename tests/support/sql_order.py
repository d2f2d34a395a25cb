"""Finds SQL that orders by something else than it says, with Postgres' own parser.

Postgres takes a bare name in ORDER BY for an output column before it looks for an input column. So
`SELECT xid::text FROM verdict ORDER BY xid` orders by the text, where '984' stands behind '3647'.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pglast import ast, parse_sql
from pglast.enums import A_Expr_Kind, SubLinkType
from pglast.visitors import Visitor

Columns = dict[str, frozenset[str]]  # of each relation

_TEXTS = {"text", "varchar", "bpchar", "name"}
_ORDERING = {"<", ">", "<=", ">="}
_BETWEEN = {A_Expr_Kind.AEXPR_BETWEEN, A_Expr_Kind.AEXPR_NOT_BETWEEN}


def complaints(statement: str, tables: Columns) -> list[str]:
    """What is wrong, a line each. tables: the columns that each table and view has.

    A bare name that is sorted or grouped by is an input column, or an output column of a name of its own. Nothing is
    ordered or compared as a text that was cast from something else. The fields of one row come from one subquery.
    """
    found: list[str] = []
    for raw in parse_sql(statement):
        texts = _cast_outputs(raw.stmt)
        for node in _all(raw.stmt):
            match node:
                case ast.SelectStmt():
                    found += _shadowed(node, raw.stmt, tables)
                    found += _taken_apart(node)
                case ast.SortBy():
                    found += _as_text(node.node, "ORDER BY", texts)
                case ast.A_Expr() if _orders(node):
                    found += _as_text((node.lexpr, node.rexpr), "a comparison", texts)
                case ast.MinMaxExpr():
                    found += _as_text(node.args, "greatest or least", texts)
                case ast.FuncCall() if node.funcname[-1].sval in {"min", "max"}:
                    found += _as_text(node.args, node.funcname[-1].sval, texts)
    return found


def _shadowed(select: Any, whole: Any, tables: Columns) -> Iterator[str]:
    """An output column that hides an input column of its name, where that name is sorted or grouped by."""
    first = select
    while first.larg is not None:  # of a UNION the first list gives the names
        first = first.larg
    outputs = {_output_name(target): target.val for target in first.targetList or ()}
    inputs = _inputs(first, whole, tables)
    clauses = {
        "ORDER BY": [sort.node for sort in select.sortClause or ()],
        "GROUP BY": select.groupClause or (),
        "DISTINCT ON": select.distinctClause or (),
    }
    for clause, nodes in clauses.items():
        for name in (_bare(node) for node in nodes):
            meant = outputs.get(name) if name is not None else None
            if meant is None or _last_name(meant) == name:
                continue
            if name in inputs or name in {_last_name(node) for node in _all(meant)}:
                yield f"{clause} {name}: an output column of that name hides the column"


def _taken_apart(select: Any) -> Iterator[str]:
    """Fields of what is meant as one row, each from a subquery that sorts and picks for itself."""
    picked: list[str] = []
    for target in select.targetList or ():
        for node in _all(target):
            if isinstance(node, ast.SubLink) and node.subLinkType == SubLinkType.EXPR_SUBLINK:
                inner = node.subselect
                if getattr(inner, "limitCount", None) is not None and inner.sortClause:
                    picked += [
                        item.relname for item in inner.fromClause or () if isinstance(item, ast.RangeVar)
                    ]
    for relation in sorted({name for name in picked if picked.count(name) > 1}):
        yield f"a row of {relation} is taken apart: several subqueries with ORDER BY and LIMIT pick for themselves"


def _as_text(node: Any, where: str, texts: frozenset[str]) -> Iterator[str]:
    for part in _all(node):
        if _is_cast_to_text(part):
            yield f"{where} of a cast to text"
        elif isinstance(part, ast.ColumnRef) and _last_name(part) in texts:
            yield f"{where} of {_last_name(part)}, which a subquery cast to text"


def _cast_outputs(statement: Any) -> frozenset[str]:
    """Output columns of subqueries and WITH that are casts to text."""
    inner = [node.ctequery for node in _all(statement) if isinstance(node, ast.CommonTableExpr)]
    inner += [node.subquery for node in _all(statement) if isinstance(node, ast.RangeSubselect)]
    targets = [target for query in inner for target in _targets(query)]
    return frozenset(name for t in targets if _is_cast_to_text(t.val) and (name := _output_name(t)))


def _inputs(select: Any, whole: Any, tables: Columns) -> frozenset[str]:
    """Names of columns of whatever stands in FROM, as far as they can be known."""
    queries = {node.ctename: node.ctequery for node in _all(whole) if isinstance(node, ast.CommonTableExpr)}
    names: set[str] = set()
    for item in _all(select.fromClause):
        if isinstance(item, ast.RangeVar):
            names |= tables.get(item.relname, frozenset())
            names |= _output_names(queries.get(item.relname))
        elif isinstance(item, ast.RangeSubselect):
            names |= _output_names(item.subquery)
    return frozenset(names)


def _output_names(query: Any) -> set[str]:
    return {name for target in _targets(query) if (name := _output_name(target))}


def _targets(query: Any) -> Sequence[Any]:
    if isinstance(query, ast.SelectStmt):
        return query.targetList or ()
    returned = getattr(query, "returningClause", None)
    return (returned.exprs or ()) if returned is not None else ()


def _output_name(target: Any) -> str | None:
    """As Postgres names it: a cast of a column has the column's name."""
    if target.name is not None:
        return str(target.name)
    value = target.val
    while isinstance(value, ast.TypeCast):
        value = value.arg
    return _last_name(value)


def _bare(node: Any) -> str | None:
    return _last_name(node) if isinstance(node, ast.ColumnRef) and len(node.fields) == 1 else None


def _last_name(node: Any) -> str | None:
    if not isinstance(node, ast.ColumnRef) or not isinstance(node.fields[-1], ast.String):
        return None
    return str(node.fields[-1].sval)


def _is_cast_to_text(node: Any) -> bool:
    """Of a column or a computed value; a literal or a parameter has no other type before."""
    if not isinstance(node, ast.TypeCast) or isinstance(node.arg, ast.ParamRef | ast.A_Const):
        return False
    return node.typeName.names[-1].sval in _TEXTS


def _orders(node: Any) -> bool:
    return node.kind in _BETWEEN or node.name[-1].sval in _ORDERING


def _all(root: Any) -> list[Any]:
    """The node and every node below it."""
    found: list[Any] = []
    collect: Callable[[Any, Any], None] = lambda _self, node: found.append(node)  # noqa: E731 - wants this form

    class Collector(Visitor):  # type: ignore[misc] # pglast has no types
        def visit(self, _ancestors: Any, node: Any) -> None:
            collect(self, node)

    for part in root if isinstance(root, tuple | list) else (root,):
        if part is not None:
            Collector()(part)
    return found
