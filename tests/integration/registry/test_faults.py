"""Copies under faults: real registries behind a proxy that breaks, alters and refuses.

Each test checks the error, and reads the target with another client: either the image is complete,
or there is no tag.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lapwing.errors import IntegrityError, RegistryError, RegistryLoginError
from lapwing.system.retry import RetryPolicy
from tests.faulty import Login, Proxy
from tests.integration.registry.conftest import Copier
from tests.registries import CONFIG, INDEX, LAYER, MANIFEST, Server, digest_of

Behind = Callable[..., Proxy]
BIG = 2_000_000


@pytest.fixture
def big(source: Server, name: str) -> dict[str, Any]:
    """An image with one layer of 2 MB, at the source as `<name>:1`."""
    source.push_image(name, "1", [os.urandom(BIG)])
    found = source.manifest(name, "1")
    assert found is not None
    layer: dict[str, Any] = found["layers"][0]
    return layer


class TestConnections:
    """Connections that break, stall or lose a response."""

    async def test_download_resumes_from_last_byte(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(source)
        front.fail("cut-answer", "GET", big["digest"], bytes=700_000)
        front.fail("cut-answer", "GET", big["digest"], bytes=500_000)

        done = await copy(f"{front.host}/{name}:1", f"{target.host}/{name}")

        assert target.whole(name, "1") == done.root.digest
        asked = [s.headers.get("Range") for s in front.requests("GET", big["digest"])]
        assert asked == [None, "bytes=700000-", "bytes=1200000-"]
        assert copy.progress.through[big["digest"]] == BIG

    async def test_download_resumes_without_range_support(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        data = source.blob(name, big["digest"])
        assert data is not None
        front = behind(source)
        front.fail("cut-answer", "GET", big["digest"], bytes=700_000)
        front.fail("answer", "GET", big["digest"], status=200, body=data)
        done = await copy(f"{front.host}/{name}:1", f"{target.host}/{name}")
        assert target.whole(name, "1") == done.root.digest

    @pytest.mark.parametrize(("method", "whole"), [("PUT", BIG), ("PATCH", 1000)])
    async def test_broken_upload_restarts(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, method: str, whole: int, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("lapwing.registry.push.MONOLITHIC_BYTES", whole)
        front = behind(target)
        front.fail("cut-request", method, "/blobs/uploads/.*", bytes=500_000, times=2)
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest
        assert front.count("GET", "/blobs/uploads/") >= 1
        assert copy.progress.through[big["digest"]] == BIG

    async def test_chunked_upload_resumes_after_last_chunk(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("lapwing.registry.push.MONOLITHIC_BYTES", 1000)
        monkeypatch.setattr("lapwing.registry.push.CHUNK_BYTES", 600_000)
        front = behind(target)
        front.fail("drop-request", "PATCH", "/blobs/uploads/", after=2)
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest
        ranges = [s.headers["Content-Range"] for s in front.requests("PATCH", "")]
        third = "1200000-1799999"
        assert ranges == ["0-599999", "600000-1199999", third, third, "1800000-1999999"]
        assert copy.progress.through[big["digest"]] == BIG

    async def test_chunk_may_be_accepted_with_204(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("lapwing.registry.push.MONOLITHIC_BYTES", 1000)
        monkeypatch.setattr("lapwing.registry.push.CHUNK_BYTES", 600_000)
        front = behind(target)
        front.fail("status", "PATCH", "/blobs/uploads/", status=204, times=4)
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest
        assert [seen.status for seen in front.requests("PATCH", "")] == [204] * 4

    async def test_forgotten_upload_restarts(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(target)
        front.fail("cut-request", "PUT", "/blobs/uploads/", bytes=500_000)
        front.fail("answer", "GET", "/blobs/uploads/", status=404, body=b'{"errors": []}')
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest

    @pytest.mark.parametrize("status", [400, 404])
    async def test_upload_lost_after_status_request_restarts(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, status: int, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("lapwing.registry.push.MONOLITHIC_BYTES", 1000)
        front = behind(target)
        front.fail("drop-request", "PATCH", "/blobs/uploads/")
        again = front.fail("answer", "PATCH", "/blobs/uploads/", status=status)
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}", jobs=1)
        assert target.whole(name, "1") == done.root.digest
        assert again.happened == 1

    @pytest.mark.parametrize("path", ["/blobs/uploads/.*digest", "/manifests/"])
    async def test_lost_response_does_not_resend_blob(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, path: str,
    ) -> None:  # fmt: skip
        front = behind(target)
        front.fail("lose-answer", "PUT", path)
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest
        # The layer and the config, and not much of either again.
        assert front.received("/blobs/") < BIG + 10_000

    async def test_slow_body(
        self, source: Server, target: Server, name: str, copy: Copier, behind: Behind
    ) -> None:
        source.push_image(name, "1", [os.urandom(100_000)])
        front = behind(source)
        front.fail("slow-answer", "GET", "/blobs/", times=2, seconds=0.02)
        done = await copy(f"{front.host}/{name}:1", f"{target.host}/{name}")
        assert target.whole(name, "1") == done.root.digest

    async def test_download_fails_after_all_attempts(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(source)
        front.fail("cut-answer", "GET", big["digest"], bytes=0, times=1000)
        with pytest.raises(RegistryError) as broken:
            await copy(f"{front.host}/{name}:1", f"{target.host}/{name}")
        assert f"The connection to {front.host} broke several times" in broken.value.message
        assert target.manifest(name, "1") is None
        assert front.count("GET", big["digest"]) == 4


class TestRefusals:
    """Registries that are overloaded, broken, or limit the size of a request."""

    async def test_retry_after_is_honoured(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(source)
        front.fail("answer", "GET", "/manifests/", status=429, headers={"Retry-After": "1"})
        began = time.monotonic()
        done = await copy(f"{front.host}/{name}:1", f"{target.host}/{name}")
        assert time.monotonic() - began >= 1.0
        assert target.whole(name, "1") == done.root.digest

    async def test_too_long_retry_after_fails_at_once(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(source)
        body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}'
        front.fail(
            "answer", "GET", "/manifests/", status=429, headers={"Retry-After": "3600"}, body=body
        )
        with pytest.raises(RegistryError) as refused:
            await copy(f"{front.host}/{name}:1", f"{target.host}/{name}")
        assert "429 (TOOMANYREQUESTS slow down)" in refused.value.message
        assert "3600 seconds" in (refused.value.hint or "")
        assert front.count("GET", "/manifests/") == 1

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("HEAD", "/blobs/"),
            ("POST", "/blobs/uploads/"),
            ("PUT", "/blobs/uploads/"),
            ("PUT", "/manifests/"),
        ],
    )
    async def test_5xx_is_retried(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, method: str, path: str,
    ) -> None:  # fmt: skip
        front = behind(target)
        front.fail("answer", method, path, status=503, times=2)
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest

    async def test_5xx_fails_after_all_attempts(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(target)
        front.fail("answer", "POST", "/blobs/uploads/", status=502, times=1000)
        with pytest.raises(RegistryError) as broken:
            await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert f"{front.host} responded 502" in broken.value.message
        assert target.manifest(name, "1") is None

    async def test_413_switches_to_smaller_chunks(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("lapwing.registry.push.REDUCED_CHUNK_BYTES", 300_000)
        front = behind(target)
        front.fail("answer", "PUT", f"/blobs/uploads/.*{big['digest']}", status=413)
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest
        assert [s.received for s in front.requests("PATCH", "")] == [300_000] * 6 + [200_000]

    async def test_403_hints_at_missing_permission(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(target)
        body = b'{"errors": [{"code": "DENIED", "message": "requires push"}]}'
        front.fail("answer", "POST", "/blobs/uploads/", status=403, body=body, times=9)
        with pytest.raises(RegistryError) as refused:
            await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert "403 (DENIED requires push)" in refused.value.message
        assert "no permission" in (refused.value.hint or "")


class TestAlteredContent:
    """Registries that send other content than they state. Nothing is tagged."""

    async def refused(self, copy: Copier, origin: str, target: Server, name: str) -> str:
        with pytest.raises(IntegrityError) as wrong:
            await copy(origin, f"{target.host}/{name}")
        assert target.manifest(name, "1") is None
        return wrong.value.message

    async def test_altered_blob(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(source)
        front.fail("change-answer", "GET", big["digest"])
        message = await self.refused(copy, f"{front.host}/{name}:1", target, name)
        assert f"Blob {big['digest']} of {front.host}/{name} has the digest" in message
        assert target.blob(name, big["digest"]) is None

    @pytest.mark.parametrize("change", [-1, 1])
    async def test_wrong_content_length(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, change: int,
    ) -> None:  # fmt: skip
        front = behind(source)
        length = str(BIG + change)
        front.fail("headers", "GET", big["digest"], headers={"content-length": length}, times=9)
        message = await self.refused(copy, f"{front.host}/{name}:1", target, name)
        assert f"has {length} bytes; its manifest says {BIG}" in message

    async def test_wrong_content_range(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(source)
        front.fail("cut-answer", "GET", big["digest"], bytes=700_000)
        lie = {"content-range": f"bytes 699999-{BIG - 1}/{BIG}"}
        front.fail("headers", "GET", big["digest"], headers=lie)
        message = await self.refused(copy, f"{front.host}/{name}:1", target, name)
        assert "from another offset than 700000" in message

    async def test_altered_manifest(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(source)
        front.fail("change-answer", "GET", "/manifests/")
        message = await self.refused(copy, f"{front.host}/{name}:1", target, name)
        assert "has the digest" in message

    async def test_child_size_differs_from_index(
        self, source: Server, target: Server, name: str, copy: Copier, behind: Behind
    ) -> None:
        child = source.push_image(name, "child", [b"x"])
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**child, "size": 7}]}
        front = behind(source)
        front.fail(
            "answer", "GET", "/manifests/1", status=200, headers={"Content-Type": INDEX},
            body=json.dumps(index).encode(),
        )  # fmt: skip
        message = await self.refused(copy, f"{front.host}/{name}:1", target, name)
        assert "its index says 7" in message

    @pytest.mark.parametrize("path", ["/manifests/", "/blobs/uploads/"])
    async def test_target_reports_another_digest(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, path: str,
    ) -> None:  # fmt: skip
        front = behind(target)
        lie = {"docker-content-digest": "sha256:" + "e" * 64}
        front.fail("headers", "PUT", path, headers=lie)
        with pytest.raises(IntegrityError) as wrong:
            await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert "sha256:eeee" in wrong.value.message


class TestMaliciousManifests:
    """Manifests made to exhaust memory, recursion or time."""

    def serve(self, front: Proxy, path: str, body: bytes, kind: str) -> None:
        headers = {"Content-Type": kind}
        front.fail("answer", "GET", path, status=200, headers=headers, body=body, times=1000)

    async def refused(self, copy: Copier, front: Proxy, target: Server, name: str) -> str:
        with pytest.raises(RegistryError) as bomb:
            await copy(f"{front.host}/{name}:1", f"{target.host}/{name}")
        assert target.manifest(name, "1") is None
        return bomb.value.message

    async def test_manifest_too_large(
        self, source: Server, target: Server, name: str, copy: Copier, behind: Behind
    ) -> None:
        front = behind(source)
        self.serve(front, "/manifests/", b'{"schemaVersion": 2' + b" " * 5_000_000, MANIFEST)
        assert "more than 4096 KiB" in await self.refused(copy, front, target, name)

    async def test_too_many_layers(
        self, source: Server, target: Server, name: str, copy: Copier, behind: Behind
    ) -> None:
        config = {"mediaType": CONFIG, "digest": "sha256:" + "a" * 64, "size": 2}
        layers = [
            {"mediaType": LAYER, "digest": f"sha256:{n:064x}", "size": 9} for n in range(3000)
        ]
        bomb = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        front = behind(source)
        self.serve(front, "/manifests/", json.dumps(bomb).encode(), MANIFEST)
        assert "has 3000 layers; the limit is 2000" in await self.refused(copy, front, target, name)
        assert front.count("GET", "/blobs/") == 0

    async def test_indexes_nested_too_deep(
        self, source: Server, target: Server, name: str, copy: Copier, behind: Behind
    ) -> None:
        front = behind(source)
        raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
        for _ in range(8):
            self.serve(front, f"/manifests/{digest_of(raw)}", raw, INDEX)
            child = {"mediaType": INDEX, "digest": digest_of(raw), "size": len(raw)}
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]}
            raw = json.dumps(index).encode()
        self.serve(front, "/manifests/1", raw, INDEX)
        assert "more than 4 deep" in await self.refused(copy, front, target, name)

    async def test_deeply_nested_json(
        self, source: Server, target: Server, name: str, copy: Copier, behind: Behind
    ) -> None:
        front = behind(source)
        self.serve(front, "/manifests/", b'{"a":' * 200_000, MANIFEST)
        assert "Cannot parse the manifest" in await self.refused(copy, front, target, name)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"digest": "sha256:../../etc"}, "64 hexadecimal digits"),
            ({"digest": "md5:" + "a" * 32}, "must be sha256 or sha512"),
            ({"size": -1}, "a size of -1"),
            ({"size": "9"}, "Cannot parse the manifest"),
        ],
    )
    async def test_invalid_descriptor(
        self, source: Server, target: Server, name: str, copy: Copier, behind: Behind,
        change: dict[str, Any], told: str,
    ) -> None:  # fmt: skip
        config = {"mediaType": CONFIG, "digest": "sha256:" + "a" * 64, "size": 2}
        layer = {"mediaType": LAYER, "digest": "sha256:" + "b" * 64, "size": 2, **change}
        bad = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
        front = behind(source)
        self.serve(front, "/manifests/", json.dumps(bad).encode(), MANIFEST)
        assert told in await self.refused(copy, front, target, name)

    async def test_schema_1_is_refused(
        self, source: Server, target: Server, name: str, copy: Copier, behind: Behind
    ) -> None:
        front = behind(source)
        old = "application/vnd.docker.distribution.manifest.v1+prettyjws"
        self.serve(front, "/manifests/", b'{"schemaVersion": 1}', old)
        assert "schema 1" in await self.refused(copy, front, target, name)


class TestLogins:
    """Basic and Bearer, with logins as Docker stores them."""

    def keep(self, folder: Path, host: str, login: Login, **entry: str) -> None:
        import base64

        pair = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
        config = {"auths": {host: entry or {"auth": pair}}}
        (folder / "config.json").write_text(json.dumps(config))

    @pytest.mark.parametrize("scheme", ["basic", "bearer"])
    async def test_stored_login(
        self, source: Server, target: Server, name: str, layers: list[bytes], copy: Copier,
        behind: Behind, docker_folder: Path, scheme: Any,
    ) -> None:  # fmt: skip
        source.push_image(name, "1", layers)
        login = Login(scheme)
        front = behind(target, login)
        self.keep(docker_folder, front.host, login)
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest
        # One request finds out how to log in; a token is got once, for what is needed.
        assert sum(s.status == 401 for s in front.seen) == 1
        expected = [[f"repository:{name}:pull,push"]] if scheme == "bearer" else []
        assert login.scopes == expected

    async def test_source_token_is_read_only(
        self, source: Server, target: Server, name: str, layers: list[bytes], copy: Copier,
        behind: Behind, docker_folder: Path,
    ) -> None:  # fmt: skip
        source.push_image(name, "1", layers)
        login = Login("bearer")
        front = behind(source, login)
        self.keep(docker_folder, front.host, login)
        await copy(f"{front.host}/{name}:1", f"{target.host}/{name}")
        assert login.scopes == [[f"repository:{name}:pull"]]

    @pytest.mark.parametrize("uses", [1, 2, 5])
    async def test_token_expires_during_copy(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, docker_folder: Path, uses: int,
    ) -> None:  # fmt: skip
        login = Login("bearer", uses=uses)
        front = behind(target, login)
        self.keep(docker_folder, front.host, login)
        # One blob after the other, so that what happens is the same every time.
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}", jobs=1)
        assert target.whole(name, "1") == done.root.digest
        assert len(login.scopes) > 1

    async def test_token_is_renewed_before_expiry(
        self, source: Server, target: Server, name: str, layers: list[bytes], copy: Copier,
        behind: Behind, docker_folder: Path,
    ) -> None:  # fmt: skip
        source.push_image(name, "1", layers)
        login = Login("bearer", expires_in=0)
        front = behind(target, login)
        self.keep(docker_folder, front.host, login)
        login.expires_in = -1  # It has ended when it comes.
        await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert sum(s.status == 401 for s in front.seen) == 1
        assert len(login.scopes) > 3

    async def test_refresh_token(
        self, source: Server, target: Server, name: str, layers: list[bytes], copy: Copier,
        behind: Behind, docker_folder: Path,
    ) -> None:  # fmt: skip
        source.push_image(name, "1", layers)
        login = Login("bearer", refresh_token="refresh-me")
        front = behind(target, login)
        self.keep(docker_folder, front.host, login, identitytoken="refresh-me")
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest
        assert front.count("POST", "/token") == 1

    async def test_token_from_environment(
        self, source: Server, target: Server, name: str, layers: list[bytes], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        source.push_image(name, "1", layers)
        login = Login("basic", user="ci")
        front = behind(target, login)
        variable = "LAPWING_REGISTRY_" + front.host.replace(".", "_").replace(":", "_")
        given = {f"{variable}_TOKEN": login.password, f"{variable}_USER": "ci"}
        environ = {**copy.settings.environ, **given}
        copy.settings = replace(copy.settings, environ=environ)
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest

    @pytest.mark.parametrize("program", ["store", "one"])
    async def test_credential_helper(
        self, source: Server, target: Server, name: str, layers: list[bytes], copy: Copier,
        behind: Behind, docker_folder: Path, tmp_path: Path, program: str,
    ) -> None:  # fmt: skip
        source.push_image(name, "1", layers)
        login = Login("bearer")
        front = behind(target, login)
        answer = json.dumps({"Username": login.user, "Secret": login.password})
        helper = tmp_path / "docker-credential-tests"
        helper.write_text(
            "#!/bin/sh\n"
            f"test \"$1 $(cat)\" = 'get {front.host}' || "
            "{ echo credentials not found in native keychain; exit 1; }\n"
            f"echo '{answer}'\n"
        )
        helper.chmod(0o755)
        config = {"credsStore": "tests"} if program == "store" else {
            "credHelpers": {front.host: "tests"}
        }  # fmt: skip
        (docker_folder / "config.json").write_text(json.dumps(config))
        path = f"{tmp_path}:{copy.settings.environ['PATH']}"
        copy.settings = replace(copy.settings, environ={**copy.settings.environ, "PATH": path})
        done = await copy(f"{source.host}/{name}:1", f"{front.host}/{name}")
        assert target.whole(name, "1") == done.root.digest

    @pytest.mark.parametrize("scheme", ["basic", "bearer"])
    async def test_wrong_password_is_not_in_error(
        self, source: Server, name: str, copy: Copier, behind: Behind, docker_folder: Path,
        scheme: Any,
    ) -> None:  # fmt: skip
        front = behind(source, Login(scheme))
        self.keep(docker_folder, front.host, Login(scheme, password="wrong-guess"))
        with pytest.raises(RegistryLoginError) as refused:
            await copy(f"{front.host}/{name}:1", f"{source.host}/{name}")
        told = f"{refused.value.message} {refused.value.hint} {refused.value!r}"
        assert f"Authentication failed at {front.host} (401)" in told
        assert "wrong-guess" not in told

    @pytest.mark.parametrize("scheme", ["basic", "bearer"])
    async def test_missing_login_names_variable(
        self, source: Server, name: str, copy: Copier, behind: Behind, scheme: Any
    ) -> None:
        front = behind(source, Login(scheme))
        with pytest.raises(RegistryLoginError) as missing:
            await copy(f"{front.host}/{name}:1", f"{source.host}/{name}")
        assert "requires a login, and none is configured" in missing.value.message
        assert "LAPWING_REGISTRY_127_0_0_1" in (missing.value.hint or "")

    async def test_authorization_is_dropped_on_redirect_to_other_host(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind, docker_folder: Path,
    ) -> None:  # fmt: skip
        login = Login("basic")
        front, storage = behind(source, login), behind(source)
        self.keep(docker_folder, front.host, login)
        place = f"http://{storage.host}/v2/{name}/blobs/{big['digest']}?signed=1"
        headers = {"Location": place}
        front.fail("answer", "GET", big["digest"], status=307, headers=headers)
        done = await copy(f"{front.host}/{name}:1", f"{target.host}/{name}")
        assert target.whole(name, "1") == done.root.digest
        assert [s.path.endswith("?signed=1") for s in storage.seen] == [True]
        assert "Authorization" not in storage.seen[0].headers

    async def test_too_many_redirects(
        self, source: Server, target: Server, name: str, big: dict[str, Any], copy: Copier,
        behind: Behind,
    ) -> None:  # fmt: skip
        front = behind(source)
        headers = {"Location": f"/v2/{name}/blobs/{big['digest']}"}
        front.fail("answer", "GET", big["digest"], status=307, headers=headers, times=1000)
        with pytest.raises(RegistryError) as endless:
            await copy(f"{front.host}/{name}:1", f"{target.host}/{name}")
        assert "Too many redirects" in endless.value.message


def test_retry_delay_grows_up_to_limit() -> None:
    retry = RetryPolicy(attempts=9, first_delay=1.0, max_delay=4.0)
    for failed, most in ((1, 1.0), (2, 2.0), (3, 4.0), (8, 4.0)):
        assert most / 2 <= retry.delay(failed) <= most
