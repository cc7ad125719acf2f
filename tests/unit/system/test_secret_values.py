"""Which values are secrets, whatever the name of the variable."""

from __future__ import annotations

import pytest

from lapwing.system.secret_values import holds_secret


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JWT_SECRET", "f9bf78b9a18ce6d46a0cd2b0b86df9da"),
        ("SECRET_KEY", "django-insecure-#9k(2)z@q"),
        ("DATABASE_URL", "postgres://app:pw@db/x"),
        ("CHAT", "xoxb-1234567890-abcdef"),
        ("GCP", '{"private_key": "-----BEGIN PRIVATE KEY-----"}'),
        ("REDIS_PASS", "p4ss"),
        ("API_TOKEN", "8c1b2d3e4f5a"),
        ("MODEL_ACCESS", "sk-proj-abcdefghijklmnopqrstuv"),
        ("SESSION", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF123456"),
    ],
)
def test_secrets_are_found_by_value(name: str, value: str) -> None:
    assert holds_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMAGE", f"registry/app@sha256:{'ab12' * 16}"),
        ("OPTIONS", "--max-old-space-size=4096 --trace-warnings"),
        ("PYTHONPATH", "/app/src:/app/lib"),
        ("ALLOWED_HOSTS", "a.example.com,b.example.com"),
        ("CLASS", "com.example.service.PaymentServiceFactoryBean1"),
        ("BUILD_ID", "20261128.1234-abcdef"),
        ("KEY_PREFIX", "shop:"),
        ("DATABASE_URL", "sqlite:////data/app.db"),
        ("SORT_KEY", "created_at"),
        ("ROLE", "arn:aws:iam::123456789012:role/Deploy"),
        ("CERTIFICATE", "-----BEGIN CERTIFICATE-----"),
        ("TOKEN_URL", "https://login.example.com/common/oauth2/v2.0/token"),
        ("CLIENT_ID", "kZ3xQ9mB7tL2vN8cR5wY1pD4sF6gH0jA"),
        ("POLICY", "default-src 'self'"),
    ],
)
def test_harmless_values_are_not_reported(name: str, value: str) -> None:
    assert not holds_secret(name, value)
