"""The services behind the peers, and a certificate for them.

Versions `a` and `b` are the small service of the tests of switches, on the standard library alone.
`fast` is nginx where it is installed, else version `a`: then requests per second are Python's.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.integration.switching.service.run import service

from benchmarks.proxies import nginx
from benchmarks.proxies.recipe import free_port, process


@contextlib.contextmanager
def backends(folder: Path) -> Iterator[dict[str, int]]:
    """Their ports by name, for as long as the block runs."""
    with contextlib.ExitStack() as stack:
        ports = {v: stack.enter_context(service(folder / v, v)) for v in ("a", "b")}
        program = shutil.which("nginx")
        if program is None:
            yield {**ports, "fast": ports["a"]}
            return
        port = free_port()
        home = folder / "fast"
        home.mkdir()
        text, command = nginx.backend(program, home, str(port))
        (home / "nginx.conf").write_text(text)
        stack.enter_context(process(command, home, port))
        yield {**ports, "fast": port}


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key, of the kind that Lapwing makes
    (P-256). Returns their files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = (folder / "certificate.pem", folder / "key.pem")
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files
