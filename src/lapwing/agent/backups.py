"""Backups of one environment on a machine: what is stored, and where.

    <to>/<stack>/<environment>/<id>/manifest.json   what it contains, with SHA-256 and row counts
                                    <part>.tar.gz   a folder of `data/`: a resource or a volume

`<to>` is a folder or a bucket (`backup_folder`, `backup_bucket`). With recipients, each part is
encrypted by age (`.tar.gz.age`), and its plain archive is only in `data/`. `data_copies` copies
each part. Parts that cannot be copied are listed in the manifest, with the reason.

    .rehearsed.json   when a backup was last restored or verified: in the folder, or in `data/`
    data/.../.backups.json   the manifests in a bucket after the newest backup of this machine
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from lapwing.agent import data_copies, scratch_folders
from lapwing.agent.backup_bucket import BucketStore, access_keys
from lapwing.agent.backup_folder import MANIFEST, FolderStore, Store
from lapwing.agent.backup_manifest import Manifest, Part, archive_name
from lapwing.agent.processes import Owner
from lapwing.agent.resources import dumps, images, launches, servers
from lapwing.desired.secrets import SecretStore
from lapwing.errors import BackupError, LapwingError
from lapwing.observed.status import LeftOut
from lapwing.plan.model import Backup, Document, Resource
from lapwing.settings import Settings
from lapwing.system import age, files, locks

_REHEARSED, _KNOWN = ".rehearsed.json", ".backups.json"
_PLAIN = ".backup."
"""The prefix of folders with the plain files of a backup in progress."""
PROBE_S = 0.5
"""For how long a lock may be held by commands that only look whether it is held."""
VOLUME = "volume."
"""The prefix of the name of a volume's folder, and so of its part."""


class Backups:
    """The backups of one environment, as its document describes them.

    `identity` is the text of a file with age identities, which decrypt backups.
    """

    def __init__(self, settings: Settings, document: Document, identity: str | None = None) -> None:
        self.settings = settings
        self.document = document
        self.identity = identity
        self.wanted = document.backup if document.backup is not msgspec.UNSET else Backup()
        self.data = settings.data / document.stack / document.environment

    @cached_property
    def store(self) -> Store:
        """Where the backups are. Raises SecretError."""
        wanted, document = self.wanted, self.document
        ref = f"{document.stack}/{document.environment}"
        if wanted.in_bucket:
            secrets = SecretStore(self.settings.secrets)
            keys = access_keys(secrets, document.stack, document.environment)
            return BucketStore(wanted, ref, self.data, keys)
        top = Path(wanted.to) if wanted.to else self.settings.home / "backups"
        return FolderStore(top, top / ref, self.data, default=wanted.to is None)

    def create(
        self, commit: str | None, warn: Callable[[str], None], *, scheduled: bool = False
    ) -> Manifest:
        """Make a backup, and remove those of its kind, scheduled or not, beyond `keep`.

        `warn` receives a message for each old backup that cannot be removed. Raises BackupError,
        OSError.
        """
        ref = f"{self.document.stack}/{self.document.environment}"
        if not (self.document.services or self.document.resources):
            raise BackupError(
                f"{ref} cannot be backed up while it is stopped.",
                hint=f"Run `lapwing up -e {self.document.environment}` first.",
            )
        left_out = self.left_out()
        absent = {part.name for part in left_out}
        parts = {name: r for name, r in self._data_of() if name not in absent}
        if not parts:
            reasons = "; ".join(f"{part.name}, {part.reason}" for part in left_out)
            raise BackupError(
                f"Nothing of {ref} can be backed up: {reasons or 'it has no database or volume'}."
            )
        self.store.prepare()
        work = self.store.work
        with only_one(work / ".lock", "backup"):
            name, now = self._new_id()
            place = work / f".{name}.new"
            for left in (*work.glob(".*Z.new"), *self.data.glob(f"{_PLAIN}*")):
                files.remove_tree(left)
            scratch_folders.remove_left(self.data)
            place.mkdir(mode=0o700)
            try:
                made = []
                for part, resource in parts.items():
                    made.append(self._write(place, part, resource))
                    self.store.add(name, place / made[-1].file)
                manifest = Manifest(
                    id=name,
                    stack=self.document.stack,
                    environment=self.document.environment,
                    created=now,
                    commit=commit,
                    scheduled=scheduled,
                    parts=made,
                    left_out=[
                        *left_out,
                        *data_copies.devices(self.data, parts),
                        *(file for part in made for file in part.damaged_files),
                    ],
                )
                data = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
                files.write_atomic(place / MANIFEST, data)
                self.store.complete(name, place)
            except BaseException:
                files.remove_tree(place)
                with suppress(BackupError, OSError):
                    self.store.remove(name)
                raise
            found = self.list()
            old = [m for m in found if m.scheduled == scheduled][self.wanted.keep :]
            for each in old:
                try:
                    self.store.remove(each.id)
                except (BackupError, OSError) as error:
                    hint = getattr(error, "hint", None) or ""
                    warn(f"Cannot remove an old backup: {error} {hint}".rstrip())
            if self.wanted.in_bucket:
                kept = [m for m in found if m not in old]
                files.write_atomic(self.data / _KNOWN, msgspec.json.encode(kept))
        return manifest

    def left_out(self, made: Manifest | None = None) -> list[LeftOut]:
        """Return what a backup does not contain: the given one, by default the next one."""
        if made is not None and not self.document.services:  # The environment is stopped.
            return made.left_out
        there = {part.name for part in made.parts} if made is not None else None
        found = []
        for name, resource in self._data_of():
            reason = None
            if resource is not None:
                reason = data_copies.reason_left_out(resource)
            if reason is None and name not in (there or ()):
                if not (self.data / name).is_dir():
                    reason = "it has no data yet"
                elif there is not None:
                    reason = "added after the newest backup"
            if reason is not None:
                found.append(LeftOut(name=name, reason=reason))
        return [*found, *(f for part in (made.parts if made else ()) for f in part.damaged_files)]

    def known(self) -> list[Manifest]:
        """Return the complete backups, newest first; for a bucket, those recorded on this machine.

        Raises BackupError.
        """
        if not self.wanted.in_bucket:
            return self.list()
        try:
            content = (self.data / _KNOWN).read_bytes()
            return msgspec.json.decode(content, type=list[Manifest])
        except (OSError, msgspec.MsgspecError):
            return []

    def list(self) -> list[Manifest]:
        """Return the complete backups, newest first. Unreadable ones are skipped."""
        found = []
        for name in self.store.ids():
            with suppress(OSError, msgspec.MsgspecError):
                found.append(self._read(name))
        return found

    def find(self, name: str | None) -> Manifest:
        """Return a backup to restore, by default the newest. Raises BackupError."""
        for each in self.store.ids():
            if name not in (None, each):
                continue
            try:
                found = self._read(each)
            except FileNotFoundError:
                continue
            except (OSError, msgspec.MsgspecError) as error:
                raise BackupError(
                    f"The manifest of backup {each} in {self.store.place} is damaged.",
                    hint="Name another backup; see "
                    f"`lapwing backup list -e {self.document.environment}`.",
                ) from error
            if self.identity is None and any(part.encrypted for part in found.parts):
                raise BackupError(
                    f"Backup {each} is encrypted.",
                    hint="Add `--identity FILE` with the age identity of one of its recipients.",
                )
            return found
        raise BackupError(
            f"There is no backup{f' {name}' if name else ''} in {self.store.place}.",
            hint=f"Run `lapwing backup list -e {self.document.environment}`."
            if self.list()
            else f"Run `lapwing backup -e {self.document.environment}`.",
        )

    def record_rehearsal(self) -> None:
        """Record that a backup was restored or verified, if the folder is writable."""
        with suppress(OSError):
            files.write_atomic(self._rehearsed, msgspec.json.encode(time.time()))

    def last_rehearsal(self) -> float | None:
        """Return when a backup was last restored or verified; None if never."""
        try:
            return msgspec.json.decode(self._rehearsed.read_bytes(), type=float)
        except (OSError, msgspec.MsgspecError):
            return None

    @property
    def _rehearsed(self) -> Path:
        """The file with the time; for a bucket, it is found without the secrets."""
        return (self.data if self.wanted.in_bucket else self.store.work) / _REHEARSED

    def _new_id(self) -> tuple[str, float]:
        """Return the ID of a new backup, and its time; wait if the ID of this second is in use."""
        while True:
            now = time.time()
            name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            if name not in self.store.ids():
                return name, now
            time.sleep(0.1)

    def _read(self, name: str) -> Manifest:
        """Read the manifest of a backup. Raises OSError or msgspec.MsgspecError."""
        return msgspec.json.decode(self.store.read_manifest(name), type=Manifest)

    def _data_of(self) -> Iterator[tuple[str, Resource | None]]:
        """Yield the name of each folder with data, and its resource; None for a volume."""
        yield from self.document.resources.items()
        for name in sorted({v for s in self.document.services.values() for v in s.volumes}):
            yield f"{VOLUME}{name}", None

    def _write(self, place: Path, name: str, resource: Resource | None) -> Part:
        """Write the archive of one part, encrypted if the backups have recipients."""
        source, recipients = self.data / name, self.wanted.recipients
        contained = images.recorded(source) if resource is not None else None
        folder = self.data if recipients else place
        with TemporaryDirectory(dir=folder, prefix=_PLAIN) as scratch:
            plain = Path(scratch) / "archive"
            with tarfile.open(plain, "x:gz") as archive:
                login, tables = self._fill(archive, name, resource, Path(scratch))
            target = place / archive_name(name, encrypted=bool(recipients))
            if recipients:
                age.encrypt(plain, target, recipients)
            else:
                plain.rename(target)
        target.chmod(0o600)
        with target.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        return Part(
            name=name,
            kind="volume" if resource is None else resource.kind,
            bytes=target.stat().st_size,
            sha256=digest,
            program=resource.program if resource is not None else None,
            image=contained.image if contained is not None else None,
            login=login,
            encrypted=bool(recipients),
            counts=tables.counts,
            damaged=tables.damaged,
        )

    def _fill(
        self, archive: tarfile.TarFile, name: str, resource: Resource | None, scratch: Path
    ) -> tuple[str | None, data_copies.Tables]:
        """Add the data of one part; return the version of its password, and its SQLite tables."""
        source = self.data / name
        if resource is None or resource.provider == "embedded":
            return None, data_copies.add_files(archive, source, "", scratch)
        login = launches.login_of(source)
        for file in (launches.LOGIN, launches.ROOT_LOGIN, images.RECORD):
            if (source / file).exists():
                archive.add(source / file, file)
        stack, environment = self.document.stack, self.document.environment
        if resource.kind == "redis":
            password = password_of(self.settings, self.document, name, login)
            port = int((source / "port").read_text())
            data_copies.copy_redis(name, environment, port, password, scratch / "snapshot")
            # Redis reads a snapshot at the beginning of an append-only file.
            archive.add(scratch / "snapshot", "data/appendonly.aof")
        elif dumps.has_tool(resource):
            owner = Owner(stack, environment, name, servers.LABEL)
            dumps.dump(self.settings, owner, resource, scratch / dumps.FILE)
            archive.add(scratch / dumps.FILE, dumps.FILE)
        else:
            return login, data_copies.add_files(archive, source / "data", "data/", scratch)
        return login, data_copies.Tables()


def password_of(
    settings: Settings,
    document: Document,
    name: str,
    version: str | None,
    secret: str = "password",  # noqa: S107 - the name of the secret
) -> str | None:
    """Return a version of the password of a resource. Raises SecretError."""
    if version is None:
        return None
    store = SecretStore(settings.secrets)
    return store.get(document.stack, document.environment, f"resource.{name}.{secret}", version)


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock. Raises BackupError if another process holds it."""
    until = time.monotonic() + PROBE_S
    while True:
        try:
            descriptor = locks.acquire(lock, wait=False)
            break
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise BackupError(f"Another {what} of this environment is in progress.") from error
            time.sleep(PROBE_S / 20)
    try:
        yield
    finally:
        os.close(descriptor)


def main(stack: str, environment: str) -> None:
    """Make a backup of a running environment; the agent starts this on a schedule."""
    from lapwing.agent import state
    from lapwing.settings import read

    settings = read(dict(os.environ))
    memory = state.load(settings.environment(stack, environment))
    if memory is None or memory.document is None:
        raise BackupError(f"{stack}/{environment} is not running.")
    backups = Backups(settings, memory.document)
    made = backups.create(memory.commit, print, scheduled=True)
    size = sum(p.bytes for p in made.parts)
    print(f"Backup {made.id}: {len(made.parts)} parts, {size} bytes.")
    for part in made.left_out:
        print(f"NOT backed up: {part.name}, {part.reason}.")


if __name__ == "__main__":
    import sys

    try:
        main(*sys.argv[1:])
    except (LapwingError, OSError) as failed:
        sys.exit(f"error: {failed}")
