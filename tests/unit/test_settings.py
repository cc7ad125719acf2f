"""What the environment of the process says, and what it may not say."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from lapwing.errors import UsageError
from lapwing.settings import read


@pytest.mark.parametrize(
    "port",
    ["", "0", "65536", "-1", "http", "8585 ", " 8585", "8.5", "1e3", "0x10", "٣٣٣", "9" * 5000],
)
def test_a_port_that_is_none(port: str) -> None:
    with pytest.raises(UsageError, match="LAPWING_PORT") as caught:
        read({"LAPWING_PORT": port})
    assert "1 to 65535" in str(caught.value.hint)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(("port", "number"), [("1", 1), ("65535", 65535), ("08585", 8585)])
def test_a_port(port: str, number: int) -> None:
    assert read({"LAPWING_PORT": port}).port == number


def test_what_is_not_said() -> None:
    found = read({"HOME": "/home/ada"})
    assert (found.port, found.bind, found.actor, found.color) == (8585, "localhost", None, True)
    assert found.home.is_absolute()
    assert found.home.name == "lapwing"


@pytest.mark.parametrize("data", ["", "relative", "/srv/data"])
def test_default_home_is_the_data_folder_of_the_platform(
    data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A relative path is invalid (XDG Base Directory Specification); platformdirs < 4.12 used it.
    monkeypatch.setenv("XDG_DATA_HOME", data if data.startswith("/") else "")
    expected = platformdirs.user_data_dir("lapwing", appauthor=False)
    assert read({"XDG_DATA_HOME": data}).home == Path(expected)


def test_empty_is_not_said() -> None:
    said = {"LAPWING_HOME": "", "LAPWING_BIND": "", "LAPWING_ACTOR": "", "NO_COLOR": ""}
    assert read({"HOME": "/home/ada", **said}).home == read({"HOME": "/home/ada"}).home
    found = read(said)
    assert (found.bind, found.actor, found.color) == ("localhost", None, True)


@pytest.mark.parametrize("said", [{"NO_COLOR": "1"}, {"NO_COLOR": "0"}, {"TERM": "dumb"}])
def test_no_colour(said: dict[str, str]) -> None:
    """Source: no-color.org: present and not empty, whatever its value."""
    assert not read(said).color


def test_a_home_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    with pytest.raises(UsageError, match="'state', which is not an absolute path") as refused:
        read({"LAPWING_HOME": "state"})
    assert refused.value.hint == f"Set it to an absolute path, such as {tmp_path / 'state'}."
    assert read({"LAPWING_HOME": "~/state"}).home == Path("/home/ada/state")


def test_a_home_of_nobody() -> None:
    with pytest.raises(UsageError, match="the user does not exist"):
        read({"LAPWING_HOME": "~nobody-at-all-here/state"})


def test_every_path_is_below_the_home() -> None:
    found = read({"LAPWING_HOME": "/state"})
    names = [n for n, v in vars(type(found)).items() if isinstance(v, property)]
    assert len(names) >= 10
    assert len({getattr(found, n) for n in names}) == len(names)
    assert all(getattr(found, n).parent == Path("/state") for n in names)
    assert found.environment("shop", "local") == Path("/state/environments/shop/local")


def test_the_url_of_a_resource() -> None:
    found = read(
        {"LAPWING_RESOURCE_MAIN_DB_URL": "mongodb://u:tiger@h/x", "LAPWING_RESOURCE_A_URL": ""}
    )
    assert found.resource_url("main-db") == "mongodb://u:tiger@h/x"
    assert found.resource_url("a") is None
    assert found.resource_url("b") is None
    assert "tiger" not in repr(found)


@pytest.mark.parametrize(
    ("said", "files"),
    [
        ({}, ["/home/ada/.kube/config"]),
        ({"KUBECONFIG": ""}, ["/home/ada/.kube/config"]),
        ({"KUBECONFIG": "/a:/b"}, ["/a", "/b"]),
        ({"KUBECONFIG": ":/a:"}, ["/a"]),
    ],
)
def test_the_kubeconfigs(said: dict[str, str], files: list[str]) -> None:
    """Source: client-go's loading rules: empty parts of the list are left out."""
    assert read({"HOME": "/home/ada", **said}).kubeconfigs() == [Path(f) for f in files]


def test_trusted_proxies_are_networks() -> None:
    found = read({"HOME": "/home/ada", "LAPWING_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.7"})
    assert found.trusted_proxies == ("10.0.0.0/8", "192.0.2.7/32")
    assert read({"HOME": "/home/ada", **found.listener_environ()}).trusted_proxies == (
        "10.0.0.0/8",
        "192.0.2.7/32",
    )
    with pytest.raises(UsageError, match="has host bits set"):
        read({"LAPWING_TRUSTED_PROXIES": "10.0.0.1/8"})


def test_proxy_protocol_needs_trusted_proxies() -> None:
    trusted = {"LAPWING_TRUSTED_PROXIES": "10.0.0.7"}
    found = read({**trusted, "LAPWING_PROXY_PROTOCOL": "on"})
    assert found.proxy_protocol
    assert read({"HOME": "/home/ada", **found.listener_environ()}).proxy_protocol
    assert not read({**trusted, "LAPWING_PROXY_PROTOCOL": ""}).proxy_protocol
    with pytest.raises(UsageError, match="LAPWING_TRUSTED_PROXIES is not set"):
        read({"LAPWING_PROXY_PROTOCOL": "on"})
    with pytest.raises(UsageError, match="LAPWING_PROXY_PROTOCOL is 'yes'"):
        read({**trusted, "LAPWING_PROXY_PROTOCOL": "yes"})


def test_body_timeout_is_a_number_of_seconds() -> None:
    assert (read({}).body_timeout, read({"LAPWING_BODY_TIMEOUT": "0"}).body_timeout) == (600, 0)
    with pytest.raises(UsageError, match="'10m'"):
        read({"LAPWING_BODY_TIMEOUT": "10m"})


def test_underscore_headers_have_three_actions() -> None:
    assert read({"LAPWING_UNDERSCORE_HEADERS": ""}).underscore_headers == "reject"
    assert read({"LAPWING_UNDERSCORE_HEADERS": "drop"}).underscore_headers == "drop"
    with pytest.raises(UsageError, match="'keep'"):
        read({"LAPWING_UNDERSCORE_HEADERS": "keep"})


def test_metrics_port_leaves_room_for_the_next_port() -> None:
    with pytest.raises(UsageError, match="LAPWING_METRICS_PORT is '65535'") as refused:
        read({"LAPWING_METRICS_PORT": "65535"})
    assert "1 to 65534" in str(refused.value.hint)


@pytest.mark.parametrize("port", ["9100", "9101"])
def test_each_port_has_one_variable(port: str) -> None:
    environ = {"LAPWING_PORT": port, "LAPWING_METRICS_PORT": "9100"}
    with pytest.raises(UsageError, match=f"Port {port} is used by both LAPWING_PORT and"):
        read(environ)
    with pytest.raises(UsageError, match="LAPWING_PORT and LAPWING_HTTP_PORT"):
        read({"LAPWING_PORT": port, "LAPWING_HTTP_PORT": port})
