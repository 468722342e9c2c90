"""One daemon and one keeper for each lab, whatever comes and goes at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until_async
from support.process import is_gone
from umlab.daemon import claim as claim_module
from umlab.daemon.claim import Claim
from umlab.daemon.place import DAEMON_LOCK, GUESTS, KEEPER_LOCK, KEEPER_SOCKET
from umlab.errors import LabError, LabInUse
from umlab.keeper.link import KeeperLink
from umlab.lab.gc import Removed, collect
from umlab.transports.socketfile import SocketFile


@pytest.fixture
def runtime(short_dir: Path) -> Path:
    (short_dir / "lan").mkdir(mode=0o700)
    return short_dir / "lan"


class Labs:
    """Claims and links that are let go of, and keepers that are ended, whatever the test does."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self.log = runtime.parent / "keeper.log"
        self._links: list[KeeperLink] = []

    async def keeper(self, claim: Claim) -> KeeperLink:
        link = await claim.keeper(self.log)
        self._links.append(link)
        return link

    async def end(self) -> None:
        for pid in {link.pid for link in self._links}:
            for number in (signal.SIGCONT, signal.SIGTERM):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            await wait_until_async(partial(is_gone, pid), 10, "the end of a keeper")
        for link in self._links:
            link.close()


@pytest.fixture
async def labs(runtime: Path) -> AsyncIterator[Labs]:
    made = Labs(runtime)
    yield made
    await made.end()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_module, "_LOCK_PATIENCE", 0.1)
    monkeypatch.setattr(claim_module, "_KEEPER_PATIENCE", 0.1)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold a lock as another process would."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


async def test_second_daemon_is_refused_with_the_pid_of_the_first(runtime: Path, impatient: None) -> None:
    claim = Claim("lan", runtime)
    with pytest.raises(LabInUse, match=f"lan runs already, as process {os.getpid()}"):
        Claim("lan", runtime)
    claim.close()
    Claim("lan", runtime).remove()
    assert not runtime.exists()


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-5"])
async def test_lock_without_a_pid_is_respected(runtime: Path, text: bytes, impatient: None) -> None:
    with locked(runtime / DAEMON_LOCK) as fd:
        os.write(fd, text)
        with pytest.raises(LabInUse) as caught:
            Claim("lan", runtime)
    assert caught.value.pid == 0


async def test_lock_whose_file_was_removed_meanwhile_is_taken_anew(runtime: Path) -> None:
    with locked(runtime / DAEMON_LOCK):
        taking = asyncio.ensure_future(asyncio.to_thread(Claim, "lan", runtime))
        await asyncio.sleep(0.1)
        # As another one does that ends: it removes everything, then lets go.
        os.unlink(runtime / DAEMON_LOCK)
        runtime.rmdir()
    claim = await asyncio.wait_for(taking, scaled(10))
    assert os.path.samestat(os.stat(runtime / DAEMON_LOCK), os.fstat(claim._fd))
    claim.remove()


async def test_keeper_is_started_once_and_found_again(runtime: Path, labs: Labs) -> None:
    claim = Claim("lan", runtime)
    first = await labs.keeper(claim)
    assert sorted(os.listdir(runtime)) == [DAEMON_LOCK, KEEPER_LOCK, KEEPER_SOCKET]
    first.close()
    claim.close()
    claim = Claim("lan", runtime)
    second = await labs.keeper(claim)
    assert second.pid == first.pid
    soft, hard = resource.prlimit(second.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
    await second.end()
    claim.remove()
    assert not runtime.exists()


async def test_daemon_before_us_that_is_just_ending_is_waited_for(runtime: Path, labs: Labs) -> None:
    """Its lock may be free before its connection is."""
    before = Claim("lan", runtime)
    first = await labs.keeper(before)
    before.close()
    claim = Claim("lan", runtime)
    connecting = asyncio.ensure_future(labs.keeper(claim))
    done, _ = await asyncio.wait([connecting], timeout=0.1)
    assert not done
    first.close()
    assert (await asyncio.wait_for(connecting, scaled(10))).pid == first.pid
    claim.close()


async def test_keeper_that_goes_on_serving_another_daemon_is_an_error(
    runtime: Path, labs: Labs, impatient: None
) -> None:
    before = Claim("lan", runtime)
    await labs.keeper(before)
    before.close()
    claim = Claim("lan", runtime)
    with pytest.raises(LabError, match="serves another daemon"):
        await labs.keeper(claim)
    claim.close()


async def test_socket_of_a_dead_keeper_is_replaced(runtime: Path, labs: Labs) -> None:
    claim = Claim("lan", runtime)
    first = await labs.keeper(claim)
    os.kill(first.pid, signal.SIGKILL)
    await wait_until_async(lambda: is_gone(first.pid), 10, "its end")
    second = await labs.keeper(claim)
    assert second.pid != first.pid
    claim.close()


async def test_directory_of_a_living_keeper_stays(runtime: Path, labs: Labs, impatient: None) -> None:
    claim = Claim("lan", runtime)
    link = await labs.keeper(claim)
    claim.remove()
    link.close()
    claim = Claim("lan", runtime)
    assert (await labs.keeper(claim)).pid == link.pid
    claim.close()


async def test_keeper_that_is_ending_is_waited_for(runtime: Path, labs: Labs) -> None:
    claim = Claim("lan", runtime)
    with locked(runtime / KEEPER_LOCK):
        SocketFile(runtime / KEEPER_SOCKET, 5).socket.close()
        finding = asyncio.ensure_future(labs.keeper(claim))
        done, _ = await asyncio.wait([finding], timeout=0.1)
        assert not done
    link = await asyncio.wait_for(finding, scaled(10))
    assert link.pid > 0
    claim.close()


async def test_keeper_that_ends_not_is_named(runtime: Path, labs: Labs, impatient: None) -> None:
    claim = Claim("lan", runtime)
    with locked(runtime / KEEPER_LOCK), pytest.raises(LabError, match="keeper of lan serves nobody"):
        await labs.keeper(claim)
    claim.remove()


async def test_files_of_others_in_the_directory_stay(runtime: Path) -> None:
    (runtime / GUESTS).mkdir()
    (runtime / "lan.ctl").write_text("")
    Claim("lan", runtime).remove()
    assert os.listdir(runtime) == ["lan.ctl"]


async def test_guests_of_a_keeper_that_died_are_left_to_the_sweep(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    monkeypatch.setenv("TMPDIR", str(short_dir))
    runtime = short_dir / "umlab/lan"
    (runtime / GUESTS / "left").mkdir(parents=True)
    Claim("lan", runtime).remove()
    assert collect() == [Removed("lab", "lan", str(runtime))]
    assert not runtime.exists()


async def test_log_that_cannot_be_written_is_named_and_no_keeper_runs(runtime: Path) -> None:
    claim = Claim("lan", runtime)
    with pytest.raises(LabError, match=r"no keeper to be had for lan: .*/none/keeper.log"):
        await claim.keeper(runtime.parent / "none" / "keeper.log")
    claim.remove()
    assert not runtime.exists()


def test_lock_that_is_a_link_or_in_a_file_is_refused(short_dir: Path) -> None:
    (short_dir / "file").write_text("")
    with pytest.raises(LabError, match=r"no lock for lan in .*/file"):
        Claim("lan", short_dir / "file")
    (short_dir / "lan").mkdir()
    (short_dir / "lan" / DAEMON_LOCK).symlink_to(short_dir / "file")
    with pytest.raises(LabError, match=r"no lock for lan in .*/lan"):
        Claim("lan", short_dir / "lan")


_CLAIM_AND_END = """
import sys
from pathlib import Path
from umlab.daemon.claim import Claim
from umlab.errors import LabInUse
for _ in range(30):
    try:
        Claim("lan", Path(sys.argv[1])).remove()
    except LabInUse:
        pass
"""


def test_daemons_and_sweeps_that_come_and_go_at_once_never_meet(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the claim finds its lock at its path, though others remove theirs all the time."""
    from umlab.lab.gc import collect

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    runtime = short_dir / "umlab" / "lan"
    runtime.mkdir(parents=True, mode=0o700)
    (short_dir / "umlab").chmod(0o700)
    with subprocess.Popen([sys.executable, "-c", _CLAIM_AND_END, str(runtime)]) as other:
        claims = 0
        while other.poll() is None:
            collect()
            with contextlib.suppress(LabInUse):
                claim = Claim("lan", runtime)
                collect()
                assert os.path.samestat(os.stat(runtime / DAEMON_LOCK), os.fstat(claim._fd))
                claims += 1
                claim.remove()
    assert other.returncode == 0
    assert claims > 0
