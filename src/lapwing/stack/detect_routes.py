"""Find the routes of a program in its source, for `health` and `rollout: smoke` of the stack file.

Only a literal path of a GET route is found, with every prefix that it is registered below. Python
is parsed, JavaScript is searched. Every client has to get status 200 from a route of a smoke test:
a route is left out when its handler has parameters, another decorator, or names a login, a redirect
or another status. A health check may be answered with a redirect.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lapwing.stack.detect_files import SCRIPTS
from lapwing.stack.program import Files

_PREFIX = re.compile(
    r"""\.(?:route|get|post|put|patch|delete|use|all|websocket|add_url_rule)\(\s*r?["'`]/([\w-]*)"""
    r"""|prefix\s*[=:]\s*["'`]/([\w-]*)"""
    r"""|(?:setGlobalPrefix|\bpath)\(\s*["'`]/?([\w-]+)"""
)
"""The first segment of a path in a route of Flask, FastAPI, Express, Fastify, NestJS or Django."""
_HEALTH = re.compile(
    r"(?:/[\w-]+)?/_?(?:healthz?|health-?check|livez?|alive|readyz?|up|ping)/?", re.IGNORECASE
)
_LITERAL = re.compile(r"(?:/[\w.-]+)*/?")
"""A path without parameters."""
_NOT_FOR_ALL = re.compile(
    r"login|auth|permission|jwt|token|current_user|redirect|abort|raise |sendStatus"
    r"|\b(?:20[1-9]|[345]\d\d)\b",
    re.IGNORECASE,
)
"""What a handler has that may respond with another status than 200."""
_GUARDED = re.compile(
    r"before_request|dependencies\s*=|AuthenticationMiddleware|HTTPSRedirect|TrustedHost|Talisman"
    r"|\.use\([^)\n]*(?:auth|login|jwt|passport)",
    re.IGNORECASE,
)
"""What refuses or redirects requests for all routes of an application, or for a preview's host."""
_LOOPBACK = r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0)"
_APPLICATIONS = ("Flask", "FastAPI", "Starlette")
_NODE_ROUTE = re.compile(
    r"""(?:\b(\w+)|\bexpress["')]*\(\))\s*\.get\(\s*["'`](/[\w./-]*)["'`]\s*,\s*"""
    r"""(?P<handler>(?:async\s*)?(?:\(|function\b|\w+\s*=>))?"""
)
_NODE_APPLICATION = re.compile(
    r"""(?:const|let|var)\s+(\w+)[^=\n]*=\s*(?:await\s+)?"""
    r"""(?:express|[Ff]astify|new Hono|require\(["'](?:express|fastify)["']\))\("""
)
_NODE_MOUNT = re.compile(
    r"""\.use\(\s*(?:["'`](/[\w/-]*)["'`]\s*,\s*)?(\w+)(?:\.routes\(\))?\s*\)"""
)

_Handler = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True, slots=True)
class Route:
    """A GET route. `is_public` says whether its source suggests status 200 for any client."""

    path: str
    is_public: bool


def health(routes: Iterable[Route]) -> str | None:
    """Return the path of the first route with a usual name of a health check."""
    return next((r.path for r in routes if _HEALTH.fullmatch(r.path)), None)


def smoke(routes: Iterable[Route]) -> list[str]:
    """Return paths for a smoke test, the best first: `/` and the documentation of FastAPI."""
    paths = dict.fromkeys(route.path for route in routes if route.is_public)
    return sorted(paths, key=lambda path: (path != "/", path != "/docs"))


def of_command(text: str) -> str | None:
    """Return the path of the URL on this machine that the command of a health check requests."""
    url = re.search(rf"https?://{_LOOPBACK}(?::[^/\s\"')]+)?(/[\w./-]*)", text)
    return url[1] if url and url[1] != "/" else None


def prefixes(here: Files, packages: Files) -> list[str]:
    """Return the first segments of the paths of all routes in the source."""
    texts = [t for n, t in here.items() if n.endswith(".py") or SCRIPTS.fullmatch(n)]
    found = {"".join(groups) for t in (*texts, *packages.values()) for groups in _PREFIX.findall(t)}
    return sorted(f"/{segment}" for segment in found)


def of_python(text: str, others: Iterable[str]) -> list[Route]:
    """Return the GET routes of a Flask, FastAPI or Starlette application.

    They are in the module that makes it, or in others that import it.
    """
    nodes = _parse(text)
    names = "|".join(re.escape(name) for name in _applications(_made(nodes)))
    for other in others:
        if names and re.search(rf"^from [\w.]+ import .*\b(?:{names})\b", other, re.MULTILINE):
            nodes += _parse(other)
            text += other
    prefixes = dict(_prefixes(nodes))
    defined = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    functions = {function.name: function for function in defined}
    handlers: list[tuple[ast.expr, _Handler]]
    handlers = [(decorator, f) for f in defined for decorator in f.decorator_list]
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        handler = _argument(call, "view_func", 2) if _called(call) == "add_url_rule" else None
        if isinstance(handler, ast.Name) and handler.id in functions:
            handlers.append((call, functions[handler.id]))
        elif isinstance(handler, ast.Lambda):
            handlers.append((call, handler))
    guarded = bool(_GUARDED.search(text))
    found = [
        Route(path, is_public=not guarded and _is_public(handler))
        for call, handler in handlers
        if (path := _path(call, prefixes)) is not None
    ]
    if any(_has_documentation(node) for node in nodes):
        found.append(Route("/docs", is_public=not guarded))
    return found


def of_django(urls: str) -> str | None:
    """Return the path for the health check of a Django project, from its root `urls.py`.

    That is a health check's route, the login page of the administration, or `/`. A smoke test would
    be refused where ALLOWED_HOSTS does not have the preview's host.
    """
    routes, found = [], {}
    for node in _parse(urls)[:1]:
        for statement in node.body if isinstance(node, ast.Module) else []:
            names = getattr(statement, "targets", [getattr(statement, "target", None)])
            if [n.id for n in names if isinstance(n, ast.Name)] == ["urlpatterns"]:
                listed = getattr(statement, "value", None)
                routes += listed.elts if isinstance(listed, ast.List) else []
    for call in routes:
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "path" and len(call.args) > 1:
            path, view = _text(call.args[0]), ast.unparse(call.args[1])
            if view == "admin.site.urls" and path is not None:
                found["admin"] = f"/{path}login/"
            elif path is not None and not view.startswith("include("):
                found[path] = f"/{path}"
    named = health(Route(path, is_public=True) for path in found.values())
    return named or found.get("admin") or found.get("")


def of_node(text: str) -> list[Route]:
    """Return the GET routes of an Express, Fastify, Hono or Koa application in one script."""
    text = re.sub(r"/\*.*?\*/|^\s*//.*$", "", text, flags=re.DOTALL | re.MULTILINE)
    if re.search(r"basePath\(|prefix\s*:|setGlobalPrefix", text):
        return []
    prefixes: dict[str | None, str] = {n: path for path, n in _NODE_MOUNT.findall(text)}
    prefixes |= dict.fromkeys([*_NODE_APPLICATION.findall(text), "app", None], "")
    guarded, found = bool(_GUARDED.search(text)), list[Route]()
    starts = [match.start() for match in _NODE_ROUTE.finditer(text)]
    for match in _NODE_ROUTE.finditer(text):
        if match[1] in prefixes:
            end = next((start for start in starts if start > match.start()), len(text))
            handler = text[match.end() : end]
            public = not guarded and match["handler"] and not _NOT_FOR_ALL.search(handler)
            found.append(Route(prefixes[match[1]] + match[2], is_public=bool(public)))
    return found


def _parse(text: str) -> list[ast.AST]:
    """Return the nodes of a Python module; none if it cannot be parsed."""
    try:
        return list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _made(nodes: Iterable[ast.AST]) -> dict[str, ast.Call]:
    """Return the calls whose results are assigned, by the name of the variable."""
    made = {}
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            made[ast.unparse(target)] = node.value
    return made


def _applications(made: dict[str, ast.Call]) -> list[str]:
    return [name for name, call in made.items() if _called(call) in _APPLICATIONS]


def _prefixes(nodes: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """Yield each application, and blueprint or router registered with one, with its prefix."""
    made = _made(nodes)
    applications = _applications(made)
    yield from ((name, "") for name in applications)
    for call in nodes:
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        name = ast.unparse(call.args[0]) if call.args else ""
        if ast.unparse(call.func.value) not in applications or name not in made:
            continue
        if call.func.attr == "register_blueprint":
            inner, outer = _prefix(made[name], "url_prefix"), _prefix(call, "url_prefix")
            prefix = inner if outer == "" else outer
        elif call.func.attr == "include_router":
            inner, outer = _prefix(made[name], "prefix"), _prefix(call, "prefix")
            prefix = None if inner is None or outer is None else outer + inner
        else:
            continue
        if prefix is not None:
            yield name, prefix


def _prefix(call: ast.Call, name: str) -> str | None:
    """Return an argument that is a prefix: empty if it is missing, None if it is not a literal."""
    value = _argument(call, name)
    return "" if value is None else _text(value)


def _path(call: ast.AST, prefixes: dict[str, str]) -> str | None:
    """Return the path of a GET route, from the call that adds it; None for anything else."""
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return None
    prefix = prefixes.get(ast.unparse(call.func.value))
    methods = _argument(call, "methods")
    reads = methods is None or "GET" in ast.unparse(methods).upper()
    if call.func.attr not in ("get", "route", "api_route", "add_url_rule") or not reads:
        return None
    path = _text(call.args[0]) if call.args else None
    if prefix is None or path is None or not _LITERAL.fullmatch(prefix + path):
        return None
    return prefix + path or "/"


def _is_public(handler: _Handler) -> bool:
    """Return whether a handler has no parameter but the request, and nothing that may refuse it."""
    needed = [a.arg for a in (*handler.args.posonlyargs, *handler.args.args)]
    others = getattr(handler, "decorator_list", [])
    return (
        needed in ([], ["request"])
        and not handler.args.kwonlyargs
        and all(_called(d) in ("get", "route", "api_route") for d in others)
        and not _NOT_FOR_ALL.search(ast.unparse(handler))
    )


def _has_documentation(node: ast.AST) -> bool:
    """Return whether a FastAPI application has its documentation at `/docs`, the default."""
    return (
        isinstance(node, ast.Call)
        and _called(node) == "FastAPI"
        and not {k.arg for k in node.keywords} & {"docs_url", "openapi_url", None}
    )


def _called(node: ast.AST) -> str:
    """Return the last name of what is called, such as `Flask` of `flask.Flask()`."""
    return ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""


def _argument(call: ast.Call, name: str, position: int | None = None) -> ast.expr | None:
    """Return an argument by its name, or by its position."""
    if position is not None and position < len(call.args):
        return call.args[position]
    return next((k.value for k in call.keywords if k.arg == name), None)


def _text(node: ast.AST) -> str | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else None
