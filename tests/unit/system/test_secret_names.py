"""Which variables hold a secret."""

from __future__ import annotations

import pytest

from lapwing.system.secret_names import is_secret, is_secret_file, is_secret_name


@pytest.mark.parametrize(
    "name",
    ["SECRET_KEY", "api_token", "DB_PASSWORD", "PGPASSWD", "SMTP_PASS", "PASSPHRASE", "APIKEY",
     "AWS_ACCESS_KEY_ID", "STRIPE_API_KEY", "KEY", "SIGNING_KEY", "SENTRY_DSN", "npm_config__auth",
     "//registry.example/:_authToken", "GOOGLE_CREDENTIALS", "TLS_PRIVATE_KEY", "GITHUB_PAT"],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert is_secret(name, "a value")


@pytest.mark.parametrize(
    "name",
    ["COLOR", "AUTHOR", "AUTH_MODE", "KEYBOARD", "MONKEY", "COMPASS", "PRIVATE_NETWORK", "PATH",
     "NEXT_PUBLIC_API_KEY", "STRIPE_PUBLISHABLE_KEY", "PATTERN"],
)  # fmt: skip
def test_names_of_other_variables(name: str) -> None:
    assert not is_secret_name(name)
    assert not is_secret(name, "a value")
    assert is_secret(name, "a value", secrets=[name])


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("postgres://shop:hidden@db/shop", True), ("redis://:hidden@cache", True),
        ("-----BEGIN RSA PRIVATE KEY-----", True), ("https://example.com:8080/a@b", False),
        ("https://user@example.com/", False), ("blue", False),
    ],
)  # fmt: skip
def test_values_that_are_secrets(value: str, answer: bool) -> None:
    assert is_secret("NEXT_PUBLIC_COLOR", value) is answer


@pytest.mark.parametrize("value", ["true", "False", "", "off"])
def test_switch_with_name_of_a_secret_is_none(value: str) -> None:
    assert not is_secret("USE_TOKEN", value)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (".env", True), ("app/.env.production.local", True), (".env.development.local", True),
        (".envrc", True), (".env.distribution", True), (".env.example.local", True),
        (".ssh/id_dsa", True), ("id_ed25519", True), ("id_rsa.pub", False),
        (".env.example", False), (".env.production.sample", False), (".env.dist", False),
        (".envrc.template", False), (".environment", False),
    ],
)  # fmt: skip
def test_files_with_secrets(path: str, answer: bool) -> None:
    assert is_secret_file(path) is answer
