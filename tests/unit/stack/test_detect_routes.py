"""The health check and the smoke test that `init` finds in source."""

from __future__ import annotations

import pytest

from lapwing.stack import detect_routes
from lapwing.stack.detect import detect

FLASK = "from flask import *\napp = Flask(__name__)\n"


def found(routes: list[detect_routes.Route]) -> tuple[str | None, str | None]:
    """The paths of the health check and of the smoke test."""
    return detect_routes.health(routes), next(iter(detect_routes.smoke(routes)), None)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("@app.get('/orders')\ndef orders(): return 'none'", (None, "/orders")),
        ("@app.get('/orders')\n@app.get('/')\ndef orders(): return 'none'", (None, "/")),
        ("@app.route('/up', methods=['GET'])\ndef up(): return 'ok'", ("/up", "/up")),
        ("@app.route('/up', methods=['POST'])\ndef up(): return 'ok'", (None, None)),
        ("@app.get('/orders/<name>')\ndef order(name): return name", (None, None)),
        ("@app.get('/')\n@login_required\ndef home(): return 'ok'", (None, None)),
        ("@app.get('/')\ndef home(): return redirect('/shop')", (None, None)),
        ("@app.get('/')\ndef home(): return '', 204", (None, None)),
        ("@app.before_request\ndef check(): ...\n@app.get('/')\ndef home(): ...", (None, None)),
        ("'''\n@app.get('/healthz')\n'''\nget(HOST + '/healthz')", (None, None)),
        ("app.add_url_rule('/ping', view_func=lambda: 'ok')", ("/ping", "/ping")),
        ("def home(): ...\napp.add_url_rule('/', 'home', home)", (None, "/")),
        (
            "api = Blueprint('api', __name__, url_prefix='/api')\n@api.get('/health')\n"
            "def health(): return 'ok'\napp.register_blueprint(api)",
            ("/api/health", "/api/health"),
        ),
        (
            "api = Blueprint('api', __name__, url_prefix='/api')\n@api.get('/health')\n"
            "def health(): return 'ok'\napp.register_blueprint(api, url_prefix=PREFIX)",
            (None, None),
        ),
        ("api = Blueprint('api', __name__)\n@api.get('/health')\ndef f(): ...", (None, None)),
        ("def create(): (", (None, None)),
    ],
)
def test_routes_of_flask(source: str, expected: tuple[str | None, str | None]) -> None:
    assert found(detect_routes.of_python(FLASK + source, [])) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("app = FastAPI()", (None, "/docs")),
        ("app = FastAPI(title='Shop')\n@app.get('/items')\ndef items(): ...", (None, "/docs")),
        ("app = FastAPI(docs_url=None)\n@app.get('/items')\ndef items(): ...", (None, "/items")),
        ("app = FastAPI(**options)\n@app.get('/items')\ndef items(q: str): ...", (None, None)),
        (
            "r = APIRouter(prefix='/v1')\napp = FastAPI(docs_url=None)\n"
            "@r.get('')\nasync def items(): ...\napp.include_router(r, prefix='/api')",
            (None, "/api/v1"),
        ),
        ("app = FastAPI()\napp.add_middleware(TrustedHostMiddleware)", (None, None)),
    ],
)
def test_routes_of_fastapi(source: str, expected: tuple[str | None, str | None]) -> None:
    assert found(detect_routes.of_python(source, [])) == expected


def test_routes_in_module_that_imports_the_application_are_found() -> None:
    route = "@app.get('/healthz')\ndef healthz(): return 'ok'\n"
    for line, path in (
        ("from shop import app, db\n", "/healthz"),
        ("from other import db\n", None),
    ):
        assert found(detect_routes.of_python(FLASK, [line + route]))[0] == path


@pytest.mark.parametrize(
    ("patterns", "path"),
    [
        ("[path('', home), path('health/', health), path('admin/', admin.site.urls)]", "/health/"),
        ("[path('', home), path('admin/', admin.site.urls)]", "/admin/login/"),
        ("[path('', home)]", "/"),
        ("[path('', include('shop.urls'))]", None),
        ("[path('a/', include([path('health', view)]))]", None),
        ("[path('<slug>', page), *more]", None),
        ("more()", None),
    ],
)
def test_health_check_of_django(patterns: str, path: str | None) -> None:
    assert detect_routes.of_django(f"'''path('', home)'''\nurlpatterns = {patterns}") == path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("app.get('/', (request, response) => response.send('shop'))", (None, "/")),
        ("const web = express()\nweb.get('/healthz', check)", ("/healthz", None)),
        ("require('express')().get('/users', (_, answer) => answer.send([]))", (None, "/users")),
        ("// app.get('/', () => 1)\naxios.get('/healthz', () => 1)", (None, None)),
        ("app.get('/', requireLogin, (request, response) => response.send())", (None, None)),
        ("app.get('/', (request, response) => response.redirect('/shop'))", (None, None)),
        ("app.get('/orders/:id', (request, response) => response.send())", (None, None)),
        ("app.use(authenticate)\napp.get('/', () => 1)", (None, None)),
        ("app.use('/api', r)\nr.get('/health', (q, s) => s.send())", ("/api/health",) * 2),
        ("router.get('/health', (context) => 1)\napp.use(router.routes())", ("/health",) * 2),
        ("router.get('/health', (context) => 1)", (None, None)),
        ("fastify.register(api, {prefix: '/v1'})\napp.get('/health', () => 1)", (None, None)),
    ],
)
def test_routes_of_node(source: str, expected: tuple[str | None, str | None]) -> None:
    assert found(detect_routes.of_node(source)) == expected


@pytest.mark.parametrize(
    ("build", "folder"),
    [
        ("mkdir -p dist && cp index.html dist", "dist"),
        ("tailwindcss -i style.css -o public/style.css", "."),
        ("node build.mjs", "."),
        (None, "."),
    ],
)
def test_page_with_a_package_file_is_a_static_service(build: str | None, folder: str) -> None:
    scripts = f'{{"scripts": {{"build": "{build}"}}}}' if build else "{}"
    service = detect("shop", {"index.html": "<p>", "package.json": scripts}).services[0]
    assert (service.kind, service.static, service.spa) == ("static", folder, False)
    assert any("the whole folder" in note for note in service.notes) == (folder == ".")


@pytest.mark.parametrize("guard", ["src/middleware.ts", "proxy.js"])
def test_next_page_behind_middleware_has_no_smoke_test(guard: str) -> None:
    package = '{"dependencies": {"next": "16"}, "scripts": {"build": "next build"}}'
    files = {"package.json": package, "src/app/page.tsx": "export default () => 1"}
    assert detect("shop", files).services[0].smoke == ["/"]
    assert detect("shop", files | {guard: ""}).services[0].smoke == []
