"""Images of files from elsewhere: what they are made of, and what is refused and leaves nothing."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from support.require import require_program
from umlab.errors import LabError
from umlab.guest.disk.image import image_path, list_images
from umlab.guest.disk.image_import import import_image

RAW = b"begin" + bytes(3 << 20) + b"end"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data/umlab/images"


def ignore(_done: int, _total: int) -> None:
    """Nobody looks."""


def archive(path: Path, *, mode: str = "w") -> Path:
    """Write an archive of a small root file system."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, kind, owner, bits in (
            ("etc", tarfile.DIRTYPE, 0, 0o755),
            ("etc/shadow", tarfile.REGTYPE, 42, 0),
            ("bin", tarfile.DIRTYPE, 0, 0o555),
            ("bin/su", tarfile.REGTYPE, 0, 0o4755),
            ("dev", tarfile.DIRTYPE, 0, 0o755),
            ("dev/console", tarfile.CHRTYPE, 0, 0o600),
            ("run", tarfile.SYMTYPE, 0, 0o777),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.gid, member.mode = kind, owner, bits
            member.devmajor, member.devminor, member.linkname = 5, 1, "/var/run"
            data = b"secret" if name == "etc/shadow" else b""
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def look(image: Path, request: str) -> str:
    """Return what debugfs says of an image."""
    command = [str(require_program("debugfs")), "-R", request, str(image)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_raw_image_is_copied_sparse_and_told_how_far(pack: object, tmp_path: Path) -> None:
    assert callable(pack)
    (tmp_path / "file").write_bytes(pack(RAW))
    told: list[tuple[int, int]] = []
    import_image(str(tmp_path / "file"), "made", lambda done, total: told.append((done, total)))
    (image,) = list_images()
    assert Path(image.path).read_bytes() == RAW
    assert image.disk_size < 1 << 20
    assert told
    assert all(done <= total for done, total in told)


def test_zstd_is_unpacked_by_its_program(tmp_path: Path) -> None:
    subprocess.run([require_program("zstd"), "-q", "-o", tmp_path / "file"], input=RAW, check=True)
    import_image(str(tmp_path / "file"), "made", ignore)
    assert image_path("made").read_bytes() == RAW


@pytest.mark.parametrize("mode", ["w", "w:xz"])
def test_archive_becomes_a_file_system_with_its_owners_and_devices(mode: str, tmp_path: Path) -> None:
    require_program("fakeroot")
    import_image(str(archive(tmp_path / "root.tar", mode=mode)), "made", ignore, size=16 << 20)
    (image,) = list_images()
    assert (image.file_system, image.size) == ("ext4", 16 << 20)
    path = Path(image.path)
    assert "User:     0   Group:    42" in look(path, "stat /etc/shadow")
    assert "Mode:  0000" in look(path, "stat /etc/shadow")
    assert look(path, "cat /etc/shadow") == "secret"
    assert "Mode:  04755" in look(path, "stat /bin/su")
    assert "Device major/minor number: 05:01" in look(path, "stat /dev/console")
    # A guest needs these when it boots; a link is the archive's own business.
    assert "Type: directory" in look(path, "stat /proc")
    assert "Type: symlink" in look(path, "stat /run")
    # With smaller blocks a page may be changed in part, behind which kernels read wrong.
    assert re.search(r"Block size: +4096", look(path, "stats"))


def test_archive_that_does_not_fit_says_what_helps(tmp_path: Path, store: Path) -> None:
    require_program("fakeroot")
    with tarfile.open(tmp_path / "big.tar", "w") as tar:
        member = tarfile.TarInfo("big")
        member.size = 20 << 20
        tar.addfile(member, io.BytesIO(os.urandom(member.size)))
    with pytest.raises(LabError, match=r"does not fit into 16 MiB; give it more with --size"):
        import_image(str(tmp_path / "big.tar"), "made", ignore, size=16 << 20)
    assert os.listdir(store) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"QFI\xfb" + bytes(600), "is a qcow2 image, .*: qemu-img convert -O raw"),
        (gzip.compress(b"QFI\xfb" + bytes(600), mtime=0), "is a qcow2 image"),
        (b"OOOM\0\0\0\3" + bytes(5000), "is a COW file; merge it .*: umlab cow merge"),
        (gzip.compress(os.urandom(1 << 20), mtime=0)[:500_000], "gzip failed: .*unexpected end"),
        (lzma.compress(b"x" * 100)[:40], "xz failed: .*"),
        (b"", "file makes no image: a disk of 0 bytes is too small"),
        (bytes(32768), "a disk of 32768 bytes is too small"),
        (lzma.compress(bytes(512)), "a disk of 512 bytes is too small"),
    ],
)
def test_what_is_no_image_is_refused_and_leaves_nothing(
    data: bytes, words: str, tmp_path: Path, store: Path
) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(LabError, match=words):
        import_image(str(tmp_path / "file"), "made", ignore)
    assert os.listdir(store) == []


def test_damaged_archive_is_told(tmp_path: Path, store: Path) -> None:
    require_program("fakeroot")
    path = archive(tmp_path / "root.tar")
    path.write_bytes(path.read_bytes()[:1400])
    with pytest.raises(LabError, match=r"root\.tar cannot be made an image: .*tar"):
        import_image(str(path), "made", ignore)
    assert os.listdir(store) == []


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot read /nowhere/file: No such file"):
        import_image("/nowhere/file", "made", ignore)
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(LabError, match="is neither a plain file nor a block device"):
            import_image(str(path), "made", ignore)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_interrupted_import_leaves_nothing(pack: object, tmp_path: Path, store: Path) -> None:
    assert callable(pack)
    (tmp_path / "file").write_bytes(pack(RAW))

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_image(str(tmp_path / "file"), "made", interrupt)
    assert os.listdir(store) == []


def test_missing_programs_are_told_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(LabError, match=r"no fakeroot, mke2fs, tar here; .* install fakeroot e2fsprogs tar$"):
        import_image(str(archive(tmp_path / "root.tar")), "made", ignore)
    (tmp_path / "file").write_bytes(gzip.compress(RAW, mtime=0))
    with pytest.raises(LabError, match="there is no gzip here"):
        import_image(str(tmp_path / "file"), "made", ignore)
    assert os.listdir(store) == []
