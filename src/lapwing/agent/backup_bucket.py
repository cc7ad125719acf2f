"""Backups in a bucket of S3 or of a compatible service, by boto3.

Parts are written on this machine and uploaded one after the other. The manifest is uploaded last
and removed first, so an interrupted upload or removal leaves objects without a manifest, which are
not listed. The next backup removes those that are a day old. boto3 is imported only for a bucket.
"""

from __future__ import annotations

import datetime
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from lapwing.agent.backup_folder import ID, MANIFEST
from lapwing.desired.secrets import SecretStore
from lapwing.errors import BackupError
from lapwing.plan.model import Backup
from lapwing.system import files
from lapwing.system.age import INSTALL_HINT

LEFTOVER_AGE = datetime.timedelta(days=1)
"""Objects without a manifest that are older than this do not belong to an upload in progress."""
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
ATTEMPTS = 5


def access_keys(secrets: SecretStore, stack: str, environment: str) -> dict[str, str]:
    """Return the access keys in the secrets of an environment, by variable. Raises SecretError.

    boto3 searches for those that are missing.
    """
    current = secrets.current(stack, environment)
    names = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if name in current]
    return {name: secrets.get(stack, environment, name, current[name]) for name in names}


class BucketStore:
    """The backups below one prefix of a bucket. `keys` are credentials by their AWS variable."""

    def __init__(self, wanted: Backup, ref: str, work: Path, keys: Mapping[str, str]) -> None:
        assert wanted.to is not None
        bucket, _, prefix = wanted.to.removeprefix("s3://").partition("/")
        self._bucket = bucket
        self._prefix = "/".join(filter(None, (prefix.strip("/"), ref))) + "/"
        self.place = f"s3://{bucket}/{self._prefix.rstrip('/')}"
        self.work = work
        self._wanted = wanted
        self._keys = keys

    def prepare(self) -> None:
        """Remove what interrupted uploads left, if it is a day old."""
        self.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        complete = set(self.ids())
        before = datetime.datetime.now(datetime.UTC) - LEFTOVER_AGE
        with self._reported():
            for found in list(self._objects()):
                backup = self._split(found["Key"])[0]
                if backup not in complete and found["LastModified"] < before:
                    self._client.delete_object(Bucket=self._bucket, Key=found["Key"])
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for upload in [u for page in pages for u in page.get("Uploads", ())]:
                if upload["Initiated"] < before:
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def ids(self) -> list[str]:
        """Return the IDs of the backups with a manifest, newest first."""
        with self._reported():
            names = [self._split(found["Key"]) for found in self._objects()]
        return sorted(
            (n for n, file in names if file == MANIFEST and ID.fullmatch(n)), reverse=True
        )

    def read_manifest(self, backup: str) -> bytes:
        """Download the manifest of a backup. Raises FileNotFoundError if it was removed."""
        key = f"{self._prefix}{backup}/{MANIFEST}"
        with self._reported():
            try:
                found = self._client.get_object(Bucket=self._bucket, Key=key)
            except self._client.exceptions.NoSuchKey as error:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key) from error
            content: bytes = found["Body"].read()
            return content

    def fetch(self, backup: str, file: str, scratch: Path) -> Path:
        """Download a part of a backup."""
        with self._reported():
            key = f"{self._prefix}{backup}/{file}"
            self._client.download_file(self._bucket, key, str(scratch / file))
        return scratch / file

    def add(self, backup: str, file: Path) -> None:
        """Upload a file of a backup, and remove it on this machine."""
        with self._reported():
            self._client.upload_file(str(file), self._bucket, f"{self._prefix}{backup}/{file.name}")
        file.unlink()

    def complete(self, backup: str, folder: Path) -> None:
        """Upload the manifest."""
        self.add(backup, folder / MANIFEST)
        files.remove_tree(folder)

    def remove(self, backup: str) -> None:
        """Remove the objects of a backup, its manifest first."""
        with self._reported():
            keys = [found["Key"] for found in self._objects(f"{backup}/")]
            for key in sorted(keys, key=lambda key: not key.endswith(f"/{MANIFEST}")):
                self._client.delete_object(Bucket=self._bucket, Key=key)

    def _objects(self, below: str = "") -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}{below}"
        )
        for page in pages:
            yield from page.get("Contents", ())

    def _split(self, key: str) -> tuple[str, str]:
        """Return the ID of the backup and the file name of an object."""
        backup, _, file = key.removeprefix(self._prefix).partition("/")
        return backup, file

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        session = boto3.Session(
            aws_access_key_id=self._keys.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=self._keys.get("AWS_SECRET_ACCESS_KEY"),
            region_name=self._wanted.region,
        )
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            # Not every compatible service has the newer checksums; each part has a SHA-256.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if self._wanted.endpoint else {},
        )
        return session.client("s3", endpoint_url=self._wanted.endpoint, config=config)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Raise errors of boto3 as BackupError."""
        try:
            from boto3.exceptions import Boto3Error
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise boto3_missing() from None
        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise BackupError(
                f"{self.place} cannot be used: {str(error).rstrip('.')}.",
                hint="Check the bucket, `endpoint` and `region` of `backup`, and the secrets "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment.",
            ) from error


def boto3_missing() -> BackupError:
    """Return the error for backups in S3 without boto3."""
    return BackupError("Backups in S3 need boto3.", hint=INSTALL_HINT)
