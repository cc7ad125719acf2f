"""Snapshots of the working tree, with a real repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lapwing.errors import LapwingError, ServerConnectionError, ServerError, SourceError
from lapwing.server import source
from lapwing.server.ssh import Connection, Host
from lapwing.system.git import Git
from tests.installation import GIT

ENVIRON = {**os.environ, **GIT}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("api/app.py", "web/index.html", "lapwing.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "First"]):
        subprocess.run(["git", *words], cwd=tmp_path, env=ENVIRON, check=True)
    return tmp_path


def test_files_that_changed_after_a_snapshot_are_refused(repository: Path) -> None:
    api, stack_file = repository / "api", repository / "lapwing.yaml"
    (api / "app.py").write_text("not committed yet")
    taken = source.take(repository, ENVIRON)
    source.check_unchanged(taken, (stack_file, api), ENVIRON)
    (repository / "web" / "index.html").write_text("of another service")
    source.check_unchanged(taken, (stack_file, api), ENVIRON)
    (api / "app.py").write_text("changed during the tests")
    (api / "new.py").write_text("new")
    with pytest.raises(SourceError, match=r"^api/app.py, api/new.py changed after the command"):
        source.check_unchanged(taken, (stack_file, api), ENVIRON)


HOOK = "#!/bin/sh\necho 'No more sources.' >&2; exit 1\n"
OTHER_PUSH = """\
#!/bin/sh
test -e pushed && exit
touch pushed
unset GIT_QUARANTINE_PATH
commit=$(git commit-tree -m Other "$(git mktree </dev/null)")
git update-ref refs/lapwing/vps "$commit"
"""
"""Changes the reference while the first push is received, as another push does."""


def connection(folder: Path, receive: str, hook: str) -> Connection:
    """A server whose repository has a pre-receive hook; `receive` takes the place of sshd."""
    server, program = folder / "server.git", folder / "bin" / "ssh"
    subprocess.run(["git", "init", "-q", "--bare", str(server)], env=ENVIRON, check=True)
    (server / "hooks" / "pre-receive").write_text(hook)
    (server / "hooks" / "pre-receive").chmod(0o755)
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{receive} {server}\n")
    program.chmod(0o755)
    environ = {**ENVIRON, "PATH": f"{program.parent}:{ENVIRON['PATH']}"}
    return Connection(Host("vps", "lapwing", 2222), environ, "vps")


@pytest.mark.parametrize("is_first", [True, False])
def test_source_is_sent_again_when_another_push_was_faster(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, is_first: bool
) -> None:
    folder = tmp_path_factory.mktemp("server")
    to = connection(folder, "git receive-pack", OTHER_PUSH)
    snapshot = source.take(repository, to.environ)
    server = Git(folder / "server.git", to.environ, SourceError, bare=True)
    if not is_first:
        (folder / "server.git/pushed").touch()
        source.send(repository, source.Snapshot("", "HEAD", ""), "shop", "vps", to)
        (folder / "server.git/pushed").unlink()
        (repository / "new").write_text("not committed yet")
        snapshot = source.take(repository, to.environ)
    source.send(repository, snapshot, "shop", "vps", to)
    assert (folder / "server.git/pushed").exists()
    assert server.text("rev-parse", "refs/lapwing/vps") == snapshot.files


@pytest.mark.parametrize(
    ("receive", "error", "detail"),
    [
        ("git receive-pack", ServerError, "No more sources."),
        # As on a full disk, the objects cannot be written.
        ("git -c receive.maxInputSize=10 receive-pack", ServerError, "unpack failed"),
        ("kill -9 $$; false", ServerConnectionError, "Could not read from remote"),
    ],
    ids=["hook", "unpack", "lost"],
)
def test_source_refused_by_a_server_is_not_a_lost_connection(
    repository: Path, tmp_path: Path, receive: str, error: type[LapwingError], detail: str
) -> None:
    to = connection(tmp_path, receive, HOOK)
    environ = to.environ
    with pytest.raises(error) as refused:
        source.send(repository, source.take(repository, environ), "shop", "vps", to)
    assert type(refused.value) is error
    assert detail in (refused.value.detail or "")
    if error is ServerError:
        assert refused.value.message == "lapwing@vps:2222 refused the source of shop."
        assert "as an administrator of the server: `ssh -p 2222 vps df -h`" in str(
            refused.value.hint
        )
