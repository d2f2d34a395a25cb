"""Every SQL statement of the code base, as text that Postgres' parser takes: parameters are $1."""

import ast
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pglast
from pglast import ast as sql
from sqlalchemy import TextClause, text
from sqlalchemy.dialects import postgresql

import consumer
import intake
import moderation
import producer
import worker
from moderation import ledger

_VERB = re.compile(
    r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|LOCK|SET|COMMENT|GRANT|REVOKE|DO)\b(?!,)"
)
_FIELD = re.compile(r"\{\w+\}")
_MIGRATIONS = Path(ledger.__file__).parent / "migrations" / "versions"


def parsed(statement: str) -> str:
    """The statement with its parameters as the parser takes them."""
    compiled = str(text(statement).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call] # SQLAlchemy has none
    numbered = re.sub(r"\(__\[POSTCOMPILE_\w+\]\)", "($1)", compiled)
    return re.sub(r"%\(\w+\)s", "$1", numbered).replace("%%", "%")


def module_statements() -> Iterator[tuple[str, str]]:
    """Name and text of each statement that a module of the ledger holds whole."""
    for module in _ledger_modules():
        for name, value in vars(module).items():
            words = str(value) if isinstance(value, TextClause) else value
            if _is_statement(words) and not _FIELD.search(words):
                yield f"{module.__name__}.{name}", parsed(words)


def migration_statements() -> Iterator[tuple[str, str]]:
    """Name and text of each statement of the migrations, and of those within the functions that they make."""
    for path in sorted(_MIGRATIONS.glob("*.py")):
        for name, value in vars(_migration(path)).items():
            for number, whole in enumerate(value if isinstance(value, tuple | list) else (value,)):
                words = str(whole) if isinstance(whole, TextClause) else whole
                if _is_statement(words):
                    filled = parsed(_FIELD.sub("id", words))
                    yield f"{path.stem}.{name}[{number}]", filled
                    yield from ((f"{path.stem}.{name}", body) for body in _bodies(filled))
        yield from ((path.stem, constant) for constant in _executed(path))


def statements_in_functions() -> Iterator[tuple[str, str | None]]:
    """Module and function of each call of `text` within a function, with its text, or None where it is put together."""
    for package in (moderation, producer, worker, consumer, intake):
        root = Path(package.__file__ or "").parent
        for path in sorted(root.rglob("*.py")):
            module = ".".join((package.__name__, *path.relative_to(root).with_suffix("").parts))
            yield from ((f"{module}.{where}", constant) for where, constant in _text_calls(path))


def _ledger_modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(ledger.__path__, "moderation.ledger."):
        if ".migrations" not in found.name:
            yield importlib.import_module(found.name)


def _migration(path: Path) -> ModuleType:
    spec = spec_from_file_location(f"migration_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_statement(value: object) -> bool:
    return isinstance(value, str) and " " in value.strip() and _VERB.match(value) is not None


def _bodies(statement: str) -> Iterator[str]:
    """The statements within functions that are made here."""
    for raw in pglast.parse_sql(statement):
        if not isinstance(raw.stmt, sql.CreateFunctionStmt):
            continue
        options = {option.defname: option.arg for option in raw.stmt.options}
        if options["language"].sval == "sql":
            yield options["as"][0].sval
            continue
        start, length = raw.stmt_location, raw.stmt_len or None
        source = statement.encode()[start : start + length if length else None].decode()
        for query in re.findall(r'"query": ("(?:[^"\\]|\\.)*")', json.dumps(pglast.parse_plpgsql(source))):
            words = str(json.loads(query))
            if ":=" in words:
                words = words.partition(":=")[2]
            yield words if _VERB.match(words) else f"SELECT {words}"


def _executed(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(attr="execute"), args=[ast.Constant(value=str(words)), *_]):
                yield words


def _text_calls(path: Path) -> Iterator[tuple[str, str | None]]:
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "text":
                argument = node.args[0]
                constant = str(argument.value) if isinstance(argument, ast.Constant) else None
                yield function.name, constant
