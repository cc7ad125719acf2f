"""Databases for the real scanners, Trivy and Grype, made by hand: a few vulnerabilities and no
more, so that they run without a network and what they find is known.

Grype reads an SQLite file (its schema 6). Trivy reads a bbolt file, a tree of named buckets: here
one page holds the whole tree, as buckets within buckets.

Sources: bbolt's description of its file (`page.go`, `meta.go`, `bucket.go` of go.etcd.io/bbolt),
trivy-db's of its buckets (`pkg/db`, `pkg/types`), Grype's of its tables (`grype/db/v6/models.go`).
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

PAGE = 4096
Tree = Mapping[str, Union["Tree", bytes]]


@dataclass(frozen=True, slots=True)
class Known:
    """A vulnerability of versions of a package before `fixed`. `ecosystem` is `pip` or `npm`."""

    cve: str
    ghsa: str
    ecosystem: str
    package: str
    fixed: str
    severity: str


WERKZEUG = Known("CVE-2024-34069", "GHSA-2g68-c3qc-8985", "pip", "werkzeug", "3.0.3", "high")
LODASH = Known("CVE-2019-10744", "GHSA-jf85-cpcp-j695", "npm", "lodash", "4.17.12", "critical")


def grype_database(folder: Path, known: list[Known]) -> dict[str, str]:
    """Write a database for Grype; returns the variables that lead it there and nowhere else."""
    place = folder / "6"
    place.mkdir(parents=True)
    (place / "import.json").write_text('{"digest": "xxh64:0", "client_version": "v6.1.10"}')
    with closing(sqlite3.connect(place / "vulnerability.db")) as database, database:
        database.executescript(_GRYPE)
        for number, each in enumerate(known, 1):
            _add(database, number, each)
    return {
        "GRYPE_DB_CACHE_DIR": str(folder),
        "GRYPE_DB_AUTO_UPDATE": "false",
        "GRYPE_DB_VALIDATE_AGE": "false",
        "GRYPE_DB_VALIDATE_BY_HASH_ON_START": "false",
        "GRYPE_CHECK_FOR_APP_UPDATE": "false",
    }


_GRYPE = """
create table blobs (id integer primary key, value text not null);
create table db_metadata (build_timestamp datetime, model integer, revision integer,
    addition integer);
insert into db_metadata values ('2026-11-25 00:00:00+00:00', 6, 1, 10);
create table providers (id text primary key, version text, processor text, date_captured datetime,
    input_digest text);
insert into providers values ('github', '1', 'hand', '2026-11-25 00:00:00+00:00', 'sha256:0');
create table vulnerability_handles (id integer primary key, name text, status text,
    published_date datetime, modified_date datetime, withdrawn_date datetime, provider_id text,
    blob_id integer);
create table vulnerability_aliases (name text, alias text, primary key (name, alias));
create table operating_systems (id integer primary key, name text, release_id text,
    major_version text, minor_version text, label_version text, codename text, channel text,
    eol_date datetime, eoas_date datetime);
create table packages (id integer primary key, ecosystem text, name text);
create table affected_package_handles (id integer primary key, vulnerability_id integer,
    operating_system_id integer, package_id integer, blob_id integer);
create table unaffected_package_handles (id integer primary key, vulnerability_id integer,
    operating_system_id integer, package_id integer, blob_id integer);
create table operating_system_specifier_overrides (alias text, version text, version_pattern text,
    codename text, channel text, replacement text, replacement_major_version text,
    replacement_minor_version text, replacement_label_version text, replacement_channel text,
    rolling numeric, applicable_client_db_schemas text);
create table package_specifier_overrides (ecosystem text, replacement_ecosystem text);
create table architecture_aliases (alias text primary key, canonical text);
create table cpes (id integer primary key, part text, vendor text, product text, edition text,
    language text, software_edition text, target_hardware text, target_software text, other text);
create table package_cpes (cpe_id integer, package_id integer);
create table affected_cpe_handles (id integer primary key, vulnerability_id integer,
    cpe_id integer, blob_id integer);
create table unaffected_cpe_handles (id integer primary key, vulnerability_id integer,
    cpe_id integer, blob_id integer);
create table known_exploited_vulnerability_handles (id integer primary key, cve text,
    blob_id integer);
create table epss_handles (id integer primary key, cve text, epss real, percentile real);
create table epss_metadata (date datetime);
create table cwe_handles (id integer primary key, cve text, cwe text, source text, type text);
create table ssvc_handles (id integer primary key, cve text, source text, role text, version text,
    timestamp datetime, exploitation text, automatable text, technical_impact text);
"""


def _add(database: sqlite3.Connection, number: int, known: Known) -> None:
    ecosystem, form = {"pip": ("python", "python"), "npm": ("npm", "semver")}[known.ecosystem]
    severity = {"scheme": "CHMLN", "value": known.severity, "rank": 1}
    about = {"id": known.ghsa, "aliases": [known.cve], "severities": [severity]}
    affected = {
        "cves": [known.cve],
        "ranges": [
            {
                "version": {"type": form, "constraint": f"<{known.fixed}"},
                "fix": {"version": known.fixed, "state": "fixed"},
            }
        ],
    }
    blobs = [(2 * number, json.dumps(about)), (2 * number + 1, json.dumps(affected))]
    database.executemany("insert into blobs values (?, ?)", blobs)
    day = "2026-11-25 00:00:00+00:00"
    database.execute(
        "insert into vulnerability_handles values (?, ?, 'active', ?, ?, null, 'github', ?)",
        (number, known.ghsa, day, day, 2 * number),
    )
    database.execute("insert into vulnerability_aliases values (?, ?)", (known.ghsa, known.cve))
    package = (number, ecosystem, known.package)
    database.execute("insert into packages values (?, ?, ?)", package)
    affects = (number, number, number, 2 * number + 1)
    database.execute("insert into affected_package_handles values (?, ?, null, ?, ?)", affects)


def trivy_database(folder: Path, known: list[Known]) -> dict[str, str]:
    """Write a database for Trivy; returns the variables that lead it there and nowhere else."""
    place = folder / "db"
    place.mkdir(parents=True)
    far = "2099-01-01T00:00:00Z"
    about = {"Version": 2, "NextUpdate": far, "UpdatedAt": far, "DownloadedAt": far}
    (place / "metadata.json").write_text(json.dumps(about))
    (place / "trivy.db").write_bytes(bolt(_trivy_buckets(known)))
    return {
        "TRIVY_CACHE_DIR": str(folder),
        "TRIVY_SKIP_DB_UPDATE": "true",
        "TRIVY_OFFLINE_SCAN": "true",
        "TRIVY_SKIP_VERSION_CHECK": "true",
        "TRIVY_DISABLE_TELEMETRY": "true",
    }


def _trivy_buckets(known: list[Known]) -> Tree:
    sources: dict[str, dict[str, dict[str, bytes]]] = {}
    details: dict[str, bytes] = {}
    for each in known:
        source = f"{each.ecosystem}::GitHub Security Advisory {each.ecosystem.title()}"
        advisory = {
            "VendorIDs": [each.ghsa],
            "PatchedVersions": [each.fixed],
            "VulnerableVersions": [f"<{each.fixed}"],
        }
        at = sources.setdefault(source, {}).setdefault(each.package, {})
        at[each.cve] = _json(advisory)
        level = ("unknown", "low", "medium", "high", "critical").index(each.severity)
        word = each.severity.upper()
        details[each.cve] = _json({"Severity": word, "VendorSeverity": {"ghsa": level}})
    origin = {"ID": "ghsa", "Name": "GitHub Security Advisory"}
    return {
        **sources,
        "vulnerability": details,
        "data-source": {name: _json(origin) for name in sources},
    }


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def bolt(root: Tree) -> bytes:
    """A bbolt file with a tree of buckets: two meta pages, an empty list of free pages, and a leaf
    for the root that goes on over as many pages as it needs."""
    leaf = _leaf(root, page=3)
    pages = -(-len(leaf) // PAGE)
    leaf = leaf[:12] + struct.pack("<I", pages - 1) + leaf[16:]
    metas = [_page(i, 0x04, 0) + _meta(transaction=i, end=3 + pages) for i in (0, 1)]
    free = _page(2, 0x10, 0)
    return b"".join(p.ljust(PAGE, b"\0") for p in (*metas, free)) + leaf.ljust(pages * PAGE, b"\0")


def _page(number: int, kind: int, count: int) -> bytes:
    return struct.pack("<QHHI", number, kind, count, 0)


def _meta(transaction: int, end: int) -> bytes:
    fields = struct.pack("<IIII", 0xED0CDAED, 2, PAGE, 0)
    fields += struct.pack("<QQQQQ", 3, 0, 2, end, transaction)  # root, sequence, free list
    return fields + struct.pack("<Q", _fnv(fields))


def _fnv(data: bytes) -> int:
    """The 64-bit FNV-1a hash."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found


def _leaf(tree: Tree, page: int = 0) -> bytes:
    """A leaf page; a bucket in it is its value: a header without a page of its own, and a leaf."""
    entries: list[tuple[int, bytes, bytes]] = []
    for name, value in sorted(tree.items(), key=lambda item: item[0].encode()):
        bucket = not isinstance(value, bytes)
        data = value if isinstance(value, bytes) else struct.pack("<QQ", 0, 0) + _leaf(value)
        entries.append((int(bucket), name.encode(), data))
    heads, bodies = b"", b""
    for index, (flag, key, data) in enumerate(entries):
        position = 16 * (len(entries) - index) + len(bodies)
        heads += struct.pack("<IIII", flag, position, len(key), len(data))
        bodies += key + data
    return _page(page, 0x02, len(entries)) + heads + bodies
