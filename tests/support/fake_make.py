"""A kernel's source tree, and programs that build it in a blink, fail, or hang, as they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

RELEASE = "6.12.99"
#: What the built "kernel" answers to.
KERNEL = f"""#!/bin/sh
case "$1" in
    --version) echo {RELEASE} ;;
    --showconfig) echo CONFIG_UML=y; echo CONFIG_UML_NET_VECTOR=y; echo CONFIG_HOSTFS=y ;;
    *) exit 1 ;;
esac
"""
_MAKE = f"""#!/bin/sh
[ "$1" = -C ] && shift 2
for word; do
    case "$word" in
        O=*) objects=${{word#O=}} ;;
        INSTALL_MOD_PATH=*) modules=${{word#*=}}/lib/modules/{RELEASE} ;;
    esac
done
printf '%s\\n' "$*" >>"$FAKE/asked"
cd "$objects" || exit
case "$*" in
    *olddefconfig) grep -vE "$DROPPED" .config >.config.new; mv .config.new .config ;;
    *defconfig)
        echo CONFIG_UML=y >.config; echo "CONFIG_MODULES=$MODULES" >>.config; env >"$FAKE/environment" ;;
    *modules_install)
        mkdir -p "$modules/kernel"; echo kernel/a.ko: >"$modules/modules.dep"
        echo x >"$modules/kernel/a.ko"; ln -s / "$modules/build" ;;
    *linux*)
        printf '  CC      init/main.o\\n  AS      arch/um/head.o\\n  LD      vmlinux\\n'
        eval "$THEN"
        mkdir -p include/config; echo {RELEASE} >include/config/kernel.release
        cp "$FAKE/kernel" linux; chmod +x linux; echo kernel/fs/ext4/ext4.ko >modules.builtin ;;
esac
"""
_STRIP = '#!/bin/sh\ncp -p "$3" "$2"; echo "# stripped" >>"$2"\n'


class FakeMake:
    """The tree, and what its build does.

    Attributes:
        folder: Where all of it is.
        tree: The source.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be the first in ``PATH``, with a store and a cache of our own."""
        self.folder = folder
        self.tree = folder / "linux-6.12"
        (self.tree / "arch/um").mkdir(parents=True)
        for name in ("Makefile", "Kconfig", "Kbuild"):
            (self.tree / name).touch()
        (folder / "bin").mkdir()
        for name in ("gcc", "ld", "flex", "bison", "bc", "depmod"):
            self.program(name, "#!/bin/sh\n")
        self.program("make", _MAKE)
        self.program("strip", _STRIP)
        (folder / "kernel").write_text(KERNEL)
        self._monkeypatch = monkeypatch
        path = f"{folder / 'bin'}:/usr/bin:/bin"
        for name, value in (("XDG_DATA_HOME", f"{folder}/data"), ("XDG_CACHE_HOME", f"{folder}/cache")):
            monkeypatch.setenv(name, value)
        for name, value in (("PATH", path), ("FAKE", str(folder)), ("DROPPED", "^$")):
            monkeypatch.setenv(name, value)
        self.behave(modules="n", then=":")

    def program(self, name: str, text: str) -> None:
        """Make a program."""
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def behave(
        self, *, modules: str | None = None, then: str | None = None, dropped: str | None = None
    ) -> None:
        """Tell what the next build does.

        Args:
            modules: ``y`` where its default configuration has modules.
            then: Commands that are run in the midst of compiling.
            dropped: A pattern of options that its source does not know.
        """
        for name, value in (("MODULES", modules), ("THEN", then), ("DROPPED", dropped)):
            if value is not None:
                self._monkeypatch.setenv(name, value)

    @property
    def asked(self) -> list[str]:
        """The words of all runs of make."""
        return (self.folder / "asked").read_text().splitlines()

    @property
    def environment(self) -> set[str]:
        """The names in the environment of make."""
        return {line.partition("=")[0] for line in (self.folder / "environment").read_text().splitlines()}

    @property
    def cache(self) -> Path:
        """Where objects are."""
        return self.folder / "cache/umlab/build"

    @property
    def store(self) -> Path:
        """Where kernels are."""
        return self.folder / "data/umlab/kernels"


def pid_in(path: Path) -> int:
    """Return the process that a file names, 0 where it is not there."""
    return int(path.read_text().strip() or 0) if path.exists() else 0


def is_alive(pid: int) -> bool:
    """Say whether a process runs that may not be our child: whose it is may take its time to wait for it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The name before it may hold anything.
    return status.rpartition(") ")[2][:1] not in ("Z", "X")
