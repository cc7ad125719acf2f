"""The smoke test of a release, before it gets live requests: `python smoke.py [URL]`.

Lapwing runs it against the preview address of the new release (LAPWING_PREVIEW_URL). It looks
through the eyes of the page, and stores nothing.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

TIMEOUT = 10


def fetch(url: str, body: object = None) -> tuple[int, str, str]:
    """Status, X-Release and text of an answer. Certificates are checked as always in Python:
    SSL_CERT_FILE names an authority of one's own."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    # All names under .localhost are this machine (RFC 6761), but not every resolver knows.
    target = "localhost" if host.endswith(".localhost") else host
    connection = HTTPConnection(host, port, timeout=TIMEOUT)
    connection.sock = socket.create_connection((target, port), TIMEOUT)
    try:
        if secure:
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        path = f"{parts.path}?{parts.query}"
        if body is None:
            connection.request("GET", path)
        else:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("X-Release", ""), answer.read().decode()
    finally:
        connection.close()


def check(base: str, release: str | None) -> list[str]:
    """What is wrong with the release at `base`; nothing if it may be switched to."""
    wrong = []
    status, answered, body = fetch(f"{base}/api/customers?size=5")
    if status != 200 or not isinstance(json.loads(body).get("items"), list):
        wrong.append(f"the list of customers answers {status}")
    if release and answered != release:
        wrong.append(f"release {answered!r} answers, not {release!r}")
    status, _, body = fetch(f"{base}/api/customers", {"name": "", "email": "nobody"})
    if status != 422 or "email" not in json.loads(body).get("errors", {}):
        wrong.append(f"a customer without a name answers {status}, not 422")
    return wrong


def main() -> int:
    """Check the release; the exit status is 1 if something is wrong."""
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("LAPWING_PREVIEW_URL", "")
    try:
        wrong = check(url.rstrip("/"), os.environ.get("LAPWING_RELEASE"))
    except (OSError, HTTPException, ValueError) as error:
        wrong = [f"{url or 'no address'}: {error}"]
    for line in wrong:
        print(f"smoke: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
