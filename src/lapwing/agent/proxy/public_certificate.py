"""The public certificate of a server: when it is needed, obtained and renewed.

One certificate has the domains of all environments with `tls: {acme: ...}`. A domain that the
authority cannot check is left out until its next attempt, so that it does not keep the others from
a certificate. Attempts back off, also over restarts of the agent, because authorities limit them.
Until there is a certificate, and when it cannot be renewed, Envoy uses the local one.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path

import msgspec

from lapwing.agent.proxy import acme
from lapwing.agent.proxy.certificates import Paths, load_pair
from lapwing.agent.state import EnvironmentState
from lapwing.plan.model import Acme
from lapwing.settings import Settings
from lapwing.system.files import write_atomic
from lapwing.system.x509 import names_of

log = logging.getLogger(__name__)

FIRST_DELAY_S = 60.0
LONGEST_DELAY_S = 86400.0
RENEW_AT = 2 / 3
"""The share of a certificate's lifetime after which it is renewed."""
JITTER = 1 / 20
"""The share of the lifetime by which a renewal may be earlier, different for each account."""
WARN_DAYS = 20


class Attempts(msgspec.Struct, kw_only=True):
    """The attempts that failed: their number, the time of the next one, the reason by domain."""

    failed: int = 0
    next: float = 0.0
    refused: dict[str, str] = {}


class PublicCertificate:
    """Keeps the certificate of one LAPWING_HOME.

    `answer` lets Envoy send the replies to challenges, `use` loads a new certificate,
    and `renewed` is called after that.
    """

    def __init__(
        self,
        settings: Settings,
        states: Callable[[], list[EnvironmentState]],
        answer: Callable[[Mapping[str, str]], Coroutine[None, None, None]],
        use: Callable[[], Awaitable[None]],
        renewed: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._folder = settings.certificates
        self._states = states
        self._answer = answer
        self._use = use
        self._renewed = renewed
        self._record = self._folder / "acme.json"
        self._attempts = self._read()
        self._file = Paths(self._folder).public
        self._task: asyncio.Task[None] | None = None

    def wanted(self) -> tuple[Acme | None, tuple[str, ...]]:
        """Return the authority and the domains of all environments that are served."""
        chosen: Acme | None = None
        names: set[str] = set()
        for state in sorted(self._states(), key=lambda s: (s.stack, s.environment)):
            document = state.document
            if document is None or not document.acme or not _wants(state):
                continue
            chosen = chosen or document.acme
            names.update(document.public_hosts)
        return chosen, tuple(sorted(names))

    async def tick(self) -> None:
        """Start an attempt if one is due. Call it every few seconds."""
        if self._settings.http_port is None or (self._task is not None and not self._task.done()):
            return
        chosen, names = self.wanted()
        waits = time.time() < self._attempts.next
        if waits:  # Meanwhile only for the domains that the authority did not refuse.
            names = tuple(n for n in names if n not in self._attempts.refused)
        if chosen is None or not names:
            return
        if await asyncio.to_thread(self._is_due, names, may_wait=waits):
            self._task = asyncio.create_task(self._obtain(chosen, names, is_partial=waits))

    def problem(self, state: EnvironmentState) -> str | None:
        """Return why an environment has no valid public certificate, or soon will have none."""
        if not _wants(state):
            return None
        assert state.document is not None
        if self._settings.http_port is None:
            return (
                "`tls: {acme: ...}` has no effect: LAPWING_HTTP_PORT is not set, so the authority "
                f"cannot check the domain. Run `lapwing server setup -e {state.environment}`, or "
                "set it to 80."
            )
        names = [n for n in state.document.public_hosts if n in self._attempts.refused]
        if not names:
            return None
        pair = load_pair(self._file, self._file)
        now = datetime.datetime.now(datetime.UTC)
        known = set(names_of(pair.certificate)) if pair else set()
        ends = pair.certificate.not_valid_after_utc if pair else now
        if ends - now > datetime.timedelta(days=WARN_DAYS):
            names = [n for n in names if n not in known]
        reasons: dict[str, list[str]] = {}
        for name in names:
            until = f"valid until {ends:%Y-%m-%d}" if name in known else "missing"
            reasons.setdefault(f"is {until}. {self._attempts.refused[name]}", []).append(name)
        if not reasons:
            return None
        later = time.strftime("%Y-%m-%d %H:%M", time.gmtime(self._attempts.next))
        text = (f"The public certificate for {', '.join(n)} {r}" for r, n in reasons.items())
        return f"{' '.join(text)} The next attempt is at {later} UTC."

    def _is_due(self, names: Iterable[str], *, may_wait: bool) -> bool:
        """Return whether the certificate is missing, lacks a name, or is due for renewal.

        One that `may_wait` is renewed when it is about to end: it may have names that are refused.
        """
        pair = load_pair(self._file, self._file)
        if pair is None or not set(names) <= set(names_of(pair.certificate)):
            return True
        now = datetime.datetime.now(datetime.UTC)
        begins, ends = pair.certificate.not_valid_before_utc, pair.certificate.not_valid_after_utc
        if may_wait:
            return ends - now < datetime.timedelta(days=WARN_DAYS)
        digest = hashlib.sha256(str(self._folder).encode()).digest()[0] / 256
        return now >= begins + (ends - begins) * (RENEW_AT - JITTER * digest)

    async def _obtain(self, chosen: Acme, names: tuple[str, ...], *, is_partial: bool) -> None:
        """Make one attempt, and record how it ended."""
        loop = asyncio.get_running_loop()

        def publish(replies: Mapping[str, str]) -> None:
            asyncio.run_coroutine_threadsafe(self._answer(replies), loop).result()

        try:
            trusted = await asyncio.to_thread(self._write_trusted, chosen)
            order = acme.Order(
                chosen.directory, chosen.email, names, self._folder / "acme.key", trusted
            )
            log.info("Asking %s for a certificate for %s.", chosen.directory, ", ".join(names))
            data = await asyncio.to_thread(acme.obtain, order, publish)
            await asyncio.to_thread(write_atomic, self._file, data)
            await self._use()
        except acme.CertificateError as error:
            await self._failed(error.refused, error.retry_after)
        except Exception:
            log.exception("The certificate could not be obtained.")
            reason = f"An unexpected error occurred: see {self._settings.agent / 'agent.log'}."
            await self._failed(dict.fromkeys(names, reason), 0.0)
        else:
            log.info("There is a new certificate for %s.", ", ".join(names))
            if not is_partial:
                await self._record_attempts(Attempts())
            await self._renewed()

    async def _failed(self, refused: Mapping[str, str], retry_after: float) -> None:
        """Back off; domains that were not refused are tried at once, without those that were."""
        for name, reason in sorted(refused.items()):
            log.warning("No certificate for %s. %s", name, reason)
        before = self._attempts
        waits = time.time() < before.next
        delay = min(FIRST_DELAY_S * 2**before.failed, LONGEST_DELAY_S)
        attempts = Attempts(
            failed=before.failed + (not waits),
            next=before.next if waits else time.time() + max(delay, retry_after),
            refused={**(before.refused if waits else {}), **refused},
        )
        await self._record_attempts(attempts)

    def _write_trusted(self, chosen: Acme) -> Path | None:
        if chosen.trusted is None:
            return None
        path = self._folder / "acme-trusted.pem"
        write_atomic(path, chosen.trusted.encode())
        return path

    def _read(self) -> Attempts:
        try:
            return msgspec.json.decode(self._record.read_bytes(), type=Attempts)
        except (OSError, msgspec.MsgspecError):
            return Attempts()

    async def _record_attempts(self, attempts: Attempts) -> None:
        self._attempts = attempts
        await asyncio.to_thread(write_atomic, self._record, msgspec.json.encode(attempts))


def _wants(state: EnvironmentState) -> bool:
    """Return whether an environment is served with a public certificate."""
    document = state.document
    return document is not None and bool(document.services and document.acme)
