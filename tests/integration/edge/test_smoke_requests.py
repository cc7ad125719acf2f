"""The script of a smoke request as it is rendered, with real connections that fail in each way."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.render.kubernetes.analysis import REQUEST
from tests.deployed import until
from tests.integration.edge.edges import here, variables_of
from tests.needs import require

RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\ngreen"


class Preview:
    """A service, which sends `response` to each request; None is no response in time."""

    def __init__(self, response: bytes | None = RESPONSE) -> None:
        self.requests: list[bytes] = []
        self._response = response
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Listen with a full queue: the kernel drops each new connection."""
        self._socket.listen(0)
        with socket.create_connection(("127.0.0.1", self.port)):
            yield

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        yield
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    self.requests += filter(None, [connection.recv(4096)])
                    if self._response is None:
                        connection.recv(1)  # Until the client closes it.
                    else:
                        connection.sendall(self._response)


def start(folder: Path, port: int, host: str = "127.0.0.1", *prefix: str) -> subprocess.Popen[str]:
    """Begin the smoke request of company-inc, to another URL."""
    variables = variables_of("company-inc-api-smoke")
    variables |= {"EXPECT": "200", "CONTAINS": "green", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    variables |= {"URL": f"http://{host}:{port}/smoke", "TIMEOUT": "2"}
    return subprocess.Popen(
        [*prefix, "sh", "-c", here(REQUEST, folder)], env=variables,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def first_error(smoke: subprocess.Popen[str]) -> str:
    """The message of the first attempt."""
    assert smoke.stderr is not None
    return smoke.stderr.readline()


def test_request_has_the_domain_of_the_environment(tmp_path: Path) -> None:
    """The preview Service has another name, which many applications do not accept as Host."""
    assert variables_of("company-inc-api-smoke")["URL"].endswith(":8080/api/healthz")
    preview = Preview()
    with preview.listening():
        smoke = start(tmp_path, preview.port)
        assert smoke.wait(60) == 0, smoke.communicate()
    [request] = preview.requests
    assert b"\r\nHost: app.company.example\r\n" in request


def test_request_is_repeated_while_connections_are_refused(tmp_path: Path) -> None:
    """Where network policies are enforced, connections of a new pod are refused at first."""
    preview = Preview()
    smoke = start(tmp_path, preview.port)
    assert "curl: (7)" in first_error(smoke)
    with preview.listening():
        assert smoke.wait(60) == 0, smoke.communicate()


def test_request_is_repeated_while_connections_are_dropped(tmp_path: Path) -> None:
    """Some network policies drop packets, and ICMP messages of refused connections are limited."""
    preview = Preview()
    with preview.full():
        smoke = start(tmp_path, preview.port)
        assert "curl: (28)" in first_error(smoke)
    with preview.listening():
        assert smoke.wait(60) == 0, smoke.communicate()


def test_request_is_repeated_while_its_name_is_not_resolved(tmp_path: Path) -> None:
    require("tmpfs")
    names = tmp_path / "hosts"
    names.touch()
    hosts = f'mount --bind {names} /etc/hosts && exec "$@"'
    mounted = ("unshare", "--mount", "sh", "-c", hosts, "sh")
    preview = Preview()
    with preview.listening():
        smoke = start(tmp_path, preview.port, "preview.invalid", *mounted)
        assert "curl: (6)" in first_error(smoke)
        names.write_text("127.0.0.1 preview.invalid\n")
        assert smoke.wait(60) == 0, smoke.communicate()


@pytest.mark.parametrize(("response", "error"), [(b"", "curl: (52)"), (None, "curl: (28)")])
def test_request_that_was_sent_is_not_repeated(
    tmp_path: Path, response: bytes | None, error: str
) -> None:
    """It may be what ends the service, or what keeps it busy."""
    preview = Preview(response)
    with preview.listening():
        smoke = start(tmp_path, preview.port)
        assert error in first_error(smoke)
        assert smoke.wait(60) == 1
        until(lambda: len(preview.requests) == 1, "the request arrives")
