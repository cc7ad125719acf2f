"""Backups in a bucket: answers of S3 that a server in tests gives only by chance or at scale."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import boto3
import msgspec
import pytest
from botocore.stub import Stubber

from lapwing.agent.backup_bucket import BucketStore
from lapwing.agent.backups import Backups
from lapwing.desired.secrets import SecretStore
from lapwing.errors import LapwingError
from lapwing.plan.model import Backup
from lapwing.settings import read
from tests.unit.agent.samples import document, service

IN_BUCKET = Backup(to="s3://backups")
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    given = msgspec.structs.replace(document(api=service("api-1")), backup=IN_BUCKET)
    return Backups(read({"LAPWING_HOME": str(tmp_path / "home")}), given)


@pytest.fixture
def answers(backups: Backups) -> Iterator[Stubber]:
    """The answers to requests of the store, in order."""
    store = BucketStore(IN_BUCKET, "shop/local", backups.data, KEYS)
    client = boto3.client(
        "s3", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    vars(store)["_client"] = client
    vars(backups)["store"] = store
    with Stubber(client) as stubbed:
        yield stubbed
        stubbed.assert_no_pending_responses()


def test_backup_that_is_removed_during_the_listing_is_skipped(
    backups: Backups, answers: Stubber
) -> None:
    key = "shop/local/20260101T000000Z/manifest.json"
    answers.add_response("list_objects_v2", {"Contents": [{"Key": key}]})
    answers.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    assert backups.list() == []


def test_interrupted_uploads_of_all_pages_are_removed(backups: Backups, answers: Stubber) -> None:
    for _ in range(2):
        answers.add_response("list_objects_v2", {})
    more = {"IsTruncated": True, "NextKeyMarker": "k1", "NextUploadIdMarker": "1"}
    for name, page in (("1", more), ("2", {})):
        upload = {"Key": f"k{name}", "UploadId": name, "Initiated": LONG_AGO}
        answers.add_response("list_multipart_uploads", {"Uploads": [upload], **page})
    for name in ("1", "2"):
        expected = {"Bucket": "backups", "Key": f"k{name}", "UploadId": name}
        answers.add_response("abort_multipart_upload", {}, expected)
    backups.store.prepare()


def test_last_rehearsal_of_a_bucket_is_read_without_its_secrets(backups: Backups) -> None:
    secrets = backups.settings.secrets
    for name, value in KEYS.items():
        SecretStore(secrets).set("shop", "local", name, value)
    for file in [f for f in secrets.rglob("*") if f.is_file()]:
        file.write_bytes(b"damaged")
    with pytest.raises(LapwingError):
        _ = backups.store
    backups.data.mkdir(parents=True)
    backups.record_rehearsal()
    assert backups.last_rehearsal() is not None
