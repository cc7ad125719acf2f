"""Detect the programs of a folder of Node.js source: servers, and sites that a tool builds."""

from __future__ import annotations

import re

from lapwing.stack import detect_routes
from lapwing.stack.detect_files import SCRIPTS
from lapwing.stack.program import Files, Program, mapping, read_json

_SITES = {"vite": "dist", "react-scripts": "build", "@vue/cli-service": "dist", "astro": "dist",
          "gatsby": "public", "parcel": "dist", "@11ty/eleventy": "_site"}  # fmt: skip
_SERVERS = ("express", "fastify", "koa", "hono", "@nestjs/core", "@hapi/hapi")


def node_programs(here: Files, has_command: bool) -> list[Program]:
    """Detect the programs of a folder with a package.json; one may have its command elsewhere."""
    package = mapping(read_json(here["package.json"]))
    scripts = mapping(package.get("scripts"))
    known = {n for k in ("dependencies", "devDependencies") for n in mapping(package.get(k))}
    start = scripts.get("start")
    serves = bool(known & set(_SERVERS))
    builds = "build" in scripts
    if "next" in known:
        config = "".join(t for n, t in here.items() if n.startswith("next.config"))
        if re.search(r"""output:\s*["']export["']""", config):
            return [Program("static", static="out")]
        return [_next(here, config)]
    if "@sveltejs/kit" in known:
        return _sveltekit(here, known)
    if "angular.json" in here and builds:
        output = _angular(here["angular.json"])
        if "@angular/ssr" in known and output.endswith("/browser"):
            server = output.removesuffix("browser") + "server/server.mjs"
            return [Program("web", f"node {server}", smoke=["/"])]
        return [Program("static", static=output)]
    site = next((folder for tool, folder in _SITES.items() if tool in known), None)
    if site and builds and not (serves and start):
        config = "".join(t for n, t in here.items() if n.startswith("vite.config"))
        match = re.search(r"""outDir:\s*["']([\w./-]+)["']""", config)
        return [Program("static", static=match[1] if match else site)]
    if isinstance(start, str) and start.strip() and not has_command:
        command = start if start.startswith("node ") else "npm start"
        notes = [] if serves else ["command: it must listen on 127.0.0.1:$PORT."]
        text = "\n".join(t for n, t in here.items() if SCRIPTS.fullmatch(n))
        routes = detect_routes.of_node(text)
        health, smoke = detect_routes.health(routes), detect_routes.smoke(routes)
        return [Program("web", command, health=health, smoke=smoke, notes=notes)]
    if "index.html" in here and not (site or start or has_command):
        return [_page_of_html(str(scripts.get("build", "")))]
    return []


def _page_of_html(build: str) -> Program:
    """Return the page beside a package.json: in the folder that `build` copies it to, or here."""
    copied = re.search(r"index\.html|\*\.html", build)
    output = re.search(r"(?<![\w./-])(?:\./)?(dist|build|public|out|www|_site)(?![\w.-])", build)
    if copied and output:
        return Program("static", static=output[1], spa=False)
    note = (
        "static: the whole folder is served, with package.json and node_modules; if `build` makes "
        "the page in another folder, name that."
    )
    return Program("static", static=".", spa=False, notes=[note])


def _next(here: Files, config: str) -> Program:
    """Return the server of a Next.js application.

    Its standalone output lacks the static files. Source: nextjs.org, next.config.js, output.
    """
    smoke = _page(here, r"(src/)?(app/page|pages/index)\.\w+", r"(src/)?(middleware|proxy)\.\w+")
    if not re.search(r"""output:\s*["']standalone["']""", config):
        command = "npx next start --hostname $HOST --port $PORT"
        return Program("web", command, smoke=smoke)
    run = "cp -r .next/static .next/standalone/.next/"
    run += " && if [ -d public ]; then cp -r public .next/standalone/; fi"
    return Program("web", "node .next/standalone/server.js", run=run, smoke=smoke)


def _page(here: Files, page: str, guard: str) -> list[str]:
    """Return `/` for the smoke test of an application with a first page, unless it may redirect."""
    pages = [text for name, text in here.items() if re.fullmatch(page, name)]
    guarded = any(re.fullmatch(guard, name) for name in here) or "redirect" in "".join(pages)
    return ["/"] if pages and not guarded else []


def _sveltekit(here: Files, known: set[str]) -> list[Program]:
    """Return what the adapter of a SvelteKit application makes; others need a platform."""
    if "@sveltejs/adapter-static" in known:
        return [Program("static", static="build")]
    if "@sveltejs/adapter-node" in known:
        smoke = _page(here, r"src/routes/\+page\.svelte", r"src/hooks\.server\.\w+")
        return [Program("web", "node build", smoke=smoke)]
    return []


def _angular(text: str) -> str:
    """Return the output folder of the first project. Source: angular.dev, workspace config."""
    projects = mapping(mapping(read_json(text)).get("projects"))
    name = next(iter(projects), "app")
    build = mapping(mapping(mapping(projects.get(name)).get("architect")).get("build"))
    output = mapping(build.get("options")).get("outputPath", f"dist/{name}")
    if isinstance(output, dict):
        return "/".join(
            str(output.get(k, d)) for k, d in (("base", "dist"), ("browser", "browser"))
        )
    folder = "" if str(build.get("builder", "")).endswith(":browser") else "/browser"
    return f"{output}{folder}"
