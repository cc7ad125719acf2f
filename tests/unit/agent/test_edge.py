"""What the edge of an environment adds to its routes: redirects, headers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from lapwing.agent import publisher
from lapwing.agent import state as agent_state
from lapwing.agent.basic_auth import check, problem, replace_removed, users_in
from lapwing.agent.generations import switch, switch_back
from lapwing.agent.proxy import not_found, provided_certificates
from lapwing.agent.proxy.model import Page, VirtualHost
from lapwing.agent.publisher import domain_conflict
from lapwing.agent.rollout import State
from lapwing.agent.state import EnvironmentState
from lapwing.desired.secrets import SecretStore
from lapwing.errors import SecretError
from lapwing.plan.htpasswd import NO_USERS, htpasswd
from lapwing.plan.model import Access, Acme, Certificate, Document, Edge, Maintenance, SecretVersion
from tests.unit.agent.samples import document, environment, generation, rollout, service

ACME = Acme(email="ops@example.com", directory="https://acme.example.com")


def public(**changes: object) -> Document:
    """A document with a domain and a public certificate."""
    domains = ("app.example.com", "shop.localhost")
    base = msgspec.structs.replace(document(api=service()), domains=domains, acme=ACME)
    return msgspec.structs.replace(base, **changes)


def served(running: Document, **changes: object) -> EnvironmentState:
    return environment(generation(1, spec=service(**changes)), running=running)


def hosts(state: EnvironmentState) -> dict[str, VirtualHost]:
    """The virtual hosts by each of their domains."""
    return {d: h for h in publisher.virtual_hosts([state]) for d in h.domains}


def headers(host: VirtualHost) -> dict[str, str]:
    """The changes of headers of the first route: the action and the value."""
    return {h.name: f"{h.action} {h.value}".strip() for h in host.routes[0].headers}


def test_strict_transport_security_is_for_public_domains_only() -> None:
    found = hosts(served(public(edge=Edge(redirects={"www.example.com": "app.example.com"}))))
    strict = {"strict-transport-security": "default max-age=2592000"}
    nosniff = {"x-content-type-options": "default nosniff"}
    assert headers(found["app.example.com"]) == strict | nosniff
    for host in ("shop.localhost", "localhost", "127.0.0.1", "[::1]"):
        assert headers(found[host]) == nosniff
    assert [h.name for h in found["www.example.com"].headers] == list(strict)
    local = hosts(served(public(acme=msgspec.UNSET)))
    assert headers(local["app.example.com"]) == nosniff
    assert local["app.example.com"] is local["localhost"]


def test_headers_of_a_service_override_those_of_the_environment() -> None:
    edge = Edge(headers={"x-a": "1", "x-b": "1", "strict-transport-security": "max-age=1"})
    state = served(public(edge=edge), headers={"x-b": False, "x-content-type-options": False})
    found = hosts(state)
    expected = {"x-a": "set 1", "x-b": "remove", "x-content-type-options": "remove"}
    assert headers(found["localhost"]) == expected
    strict = {"strict-transport-security": "set max-age=1"}
    assert headers(found["app.example.com"]) == expected | strict


def test_redirect_begins_before_the_end_of_a_rollout_unless_the_host_is_served() -> None:
    state = served(public(domains=("app.example.com", "www.example.com")))
    to = {"www.example.com": "app.example.com", "old.example.com": "app.example.com"}
    record = rollout(public(domains=("app.example.com",), edge=Edge(redirects=to)), state)
    record.state = State.STARTING
    found = hosts(state)
    assert found["www.example.com"].redirect is None
    assert found["old.example.com"].redirect == "app.example.com:8585"
    state.document, state.rollout = record.document, None
    assert hosts(state)["www.example.com"].redirect == "app.example.com:8585"


def test_settings_change_at_the_switch_and_host_names_end_with_the_rollout() -> None:
    old = public(domains=("a.example.com",), edge=Edge(headers={"x-a": "1"}))
    new = public(domains=("b.example.com",), edge=Edge(headers={"x-a": "2"}))
    state = served(old)
    record = rollout(new, state)
    record.state = State.ANALYSING
    for change, value in ((None, "set 1"), (switch, "set 2"), (switch_back, "set 1")):
        if change:
            change(state, record, 0.0)
        found = hosts(state)
        for host in ("a.example.com", "b.example.com"):
            assert headers(found[host])["x-a"] == value
    record.state = State.FAILED
    assert "b.example.com" not in hosts(state)
    switch(state, record, 0.0)
    record.state = State.SUCCEEDED
    assert "a.example.com" not in hosts(state)


def test_changed_redirect_changes_once_and_is_undone() -> None:
    def to(state: EnvironmentState) -> str | None:
        return hosts(state)["www.example.com"].redirect

    old, new = (
        public(edge=Edge(redirects={"www.example.com": f"{name}.example.com"})) for name in "ab"
    )
    state = served(old)
    record = rollout(new, state)
    record.state = State.ANALYSING
    assert to(state) == "a.example.com:8585"
    switch(state, record, 0.0)
    assert to(state) == "b.example.com:8585"
    switch_back(state, record, 0.0)
    assert to(state) == "a.example.com:8585"


@pytest.mark.parametrize(
    ("role", "at", "is_switched"),
    [
        ("active", State.ANALYSING, True),
        ("active", State.SWITCHING, True),
        ("active", State.SUPERSEDED, True),
        ("candidate", State.SWITCHING, False),
        ("draining", State.FAILED, False),
    ],
)
def test_state_of_an_agent_without_the_field_is_read(
    tmp_path: Path, role: str, at: State, is_switched: bool
) -> None:
    """The agent is upgraded in the middle of a rollout."""
    memory = environment(generation(1), generation(2, role, "green"), running=public())
    record = rollout(public(), memory)
    record.candidates, record.state = {"api": 2}, at
    encoded = msgspec.to_builtins(memory)
    del encoded["rollout"]["is_switched"]
    agent_state.save_encoded(tmp_path, msgspec.json.encode(encoded))
    found = agent_state.load(tmp_path)
    assert found is not None
    assert found.rollout is not None
    assert found.rollout.is_switched is is_switched


def test_no_host_name_is_in_two_virtual_hosts() -> None:
    """Envoy would reject the routes of all environments. A name belongs to who uses it already."""
    first = served(public(domains=("a.example.com", "both.example.com", "localhost")))
    second = served(public(domains=("b.example.com", "preview.a.example.com")))
    second.stack = "other"
    record = rollout(public(domains=("b.example.com", "both.example.com")), second)
    record.state = State.STARTING
    third = served(public(domains=("localhost",)))
    third.stack = "third"
    for states in ([first], [second, first], [third, second, first], [third]):
        found = publisher.virtual_hosts(states)
        domains = [d for h in found for d in h.domains]
        assert len(domains) == len({*domains})
        assert all(h.domains for h in found)
    owners = {d: h.name for h in publisher.virtual_hosts([second, first]) for d in h.domains}
    assert owners["both.example.com"] == "shop/local"
    assert owners["preview.a.example.com"] == "other/local"


@pytest.mark.parametrize("state", [State.RESOURCES, State.JOBS, State.UNDOING])
def test_host_names_of_a_refused_deployment_are_free(state: State) -> None:
    other = served(public(domains=("b.example.com",)))
    own = served(public(domains=("a.example.com",)))
    other.stack = "other"
    rollout(public(domains=("b.example.com", "a.example.com")), other).state = state
    assert domain_conflict([other, own], own, public(domains=("a.example.com",))) is None
    wanted = public(domains=("preview.b.example.com",))
    assert domain_conflict([other, own], own, wanted) == ("preview.b.example.com", "other/local")


def test_environment_without_a_document_has_no_hosts() -> None:
    """As after a first deployment that failed, while its candidate drains."""
    state = environment(generation(1, role="draining"))
    assert not hosts(state)
    assert publisher.clusters(state)


def test_maintenance_replaces_every_route_but_those_of_the_preview() -> None:
    begun = Maintenance(actor="ada", since="2026-01-02T03:04:05Z", page="<p>", retry_after=60)
    state = served(public(edge=Edge(headers={"x-a": "1"}), maintenance=begun))
    found = hosts(state)
    for host in ("app.example.com", "localhost"):
        [route] = found[host].routes
        assert (route.prefix, route.cluster, route.page) == ("/", None, Page("<p>", 60))
    assert "strict-transport-security" in headers(found["app.example.com"])
    preview = found["preview.app.example.com"]
    assert [r.cluster for r in preview.routes] == ["shop/local/api/blue-1"]
    assert preview.clients
    state.document = public()
    assert not hosts(state)["preview.app.example.com"].routes


def test_only_the_preview_host_answers_that_there_is_no_deployment() -> None:
    """Also in an environment with the name `preview`."""
    state = served(public())
    state.environment = "preview"
    found = hosts(state)
    for domain, text in (
        ("app.example.com", not_found.UNKNOWN_PATH),
        ("preview.app.example.com", not_found.NO_PREVIEW),
    ):
        [route] = not_found.other_paths(dataclasses.replace(found[domain], routes=()))
        assert route["direct_response"]["body"]["inline_string"] == text


def test_stopped_stack_has_the_maintenance_page_too() -> None:
    begun = Maintenance(actor="ada", since="2026-01-02T03:04:05Z", page="<p>")
    state = served(public(maintenance=begun))
    state.generations = []
    assert hosts(state)["app.example.com"].routes[0].page == Page("<p>", 300)
    state.document = public()
    assert not hosts(state)


def test_allowed_clients_limit_every_host_but_the_preview() -> None:
    state = served(public(), access=Access(allow=("203.0.113.0/24",)))
    rollout(msgspec.structs.replace(public(), services={"api": service("a-2")}), state)
    state.generations.append(
        generation(2, "candidate", "green", spec=service("a-2", access=Access(allow=("::/0",))))
    )
    state.rollout.candidates = {"api": 2}
    found = hosts(state)
    for host in ("app.example.com", "localhost"):
        assert [r.clients for r in found[host].routes] == [("203.0.113.0/24",)]
    assert [r.clients for r in found["preview.app.example.com"].routes] == [()]


def test_access_of_a_service_replaces_that_of_the_environment() -> None:
    edge = Edge(access=Access(allow=("203.0.113.0/24",)))
    for access, clients in (
        (msgspec.UNSET, ("203.0.113.0/24",)),
        (Access(), ()),
        (Access(allow=("::/0",)), ("::/0",)),
    ):
        [route] = hosts(served(public(edge=edge), access=access))["app.example.com"].routes
        assert route.clients == clients


def test_users_are_those_of_the_secret_and_nobody_without_it(tmp_path: Path) -> None:
    secrets = SecretStore(tmp_path)
    version = secrets.set("shop", "local", "USERS", "ada:s3cret")
    access = Access(basic_auth=SecretVersion(secret="USERS", version=version))
    state = served(public(), access=access)

    def users() -> str | None:
        found = publisher.virtual_hosts([state], users=users_in(secrets))
        return found[0].routes[0].users

    assert users() == htpasswd("ada:s3cret")
    assert problem(public(services={"api": service(access=access)}), secrets) is None
    secrets.remove("shop", "local", "USERS")
    assert users() == NO_USERS
    running = public(services={"api": service(access=access)})
    with pytest.raises(SecretError, match="USERS is not on this machine"):
        check(running, secrets)
    assert "secret USERS is not on this machine" in (problem(running, secrets) or "")
    assert problem(public(services={}, edge=Edge(access=access)), secrets) is None
    secrets.set("shop", "local", "USERS", "no users")
    secrets.set("shop", "local", "USERS", "ada:s3cret")
    check(running, secrets)


def test_removed_version_of_users_is_replaced_by_the_current_one(tmp_path: Path) -> None:
    secrets = SecretStore(tmp_path)
    old = secrets.set("shop", "local", "USERS", "ada:first")
    access = Access(basic_auth=SecretVersion(secret="USERS", version=old))
    earlier = public(edge=Edge(access=access), services={"api": service(access=access)})
    secrets.set("shop", "local", "USERS", "ada:second")
    assert replace_removed(earlier, secrets) == earlier
    secrets.remove("shop", "local", "USERS")
    assert replace_removed(earlier, secrets) == earlier
    new = secrets.set("shop", "local", "USERS", "ada:third")
    versions = [given.version for given in replace_removed(earlier, secrets).basic_auth]
    assert versions == [new, new]


def test_redirected_host_of_another_environment_is_a_conflict() -> None:
    other = served(public(edge=Edge(redirects={"www.example.com": "app.example.com"})))
    state = EnvironmentState(stack="mill", environment="live")
    wanted = public(domains=("www.example.com",))
    found = publisher.domain_conflict([other, state], state, wanted)
    assert found == ("www.example.com", "shop/local")


def test_certificate_is_used_only_once_its_document_runs() -> None:
    """Until then nobody has checked it."""
    unchecked = Certificate(chain="no PEM", key=SecretVersion(secret="KEY", version="1"))
    state = served(public())
    rollout(public(edge=Edge(certificate=unchecked)), state)
    assert provided_certificates.wanted([state]) == {}
    assert provided_certificates.hosts([state]) == frozenset()
