"""Builds the native engine: every .pyx in src/umlab/engine/_native is one extension module.

Everything else about the package is in pyproject.toml.  Where the engine cannot be built the package
installs all the same and runs on the Python engine; why that is so, ``umlab.engine.select`` tells.
CFLAGS and LDFLAGS of the environment take the place of ours.
"""

import os
import shutil
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

SOURCE = Path("src")
NATIVE = Path("umlab/engine/_native")
#: Written beside the modules where they cannot be built; ``umlab.engine.select`` reads it.
UNBUILT = "unbuilt.txt"
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}


def extensions():
    """Return the modules, uncompiled."""
    flags = {
        "extra_compile_args": [] if "CFLAGS" in os.environ else ["-O3", "-g0"],
        "extra_link_args": [] if "LDFLAGS" in os.environ else ["-Wl,--strip-all"],
    }
    return [
        Extension(".".join((*NATIVE.parts, path.stem)), [str(path)], optional=True, **flags)
        for path in sorted((SOURCE / NATIVE).glob("*.pyx"))
    ]


class BuildNative(build_ext):
    """Translates and compiles on all processors, all modules or none, and survives whatever it meets."""

    def finalize_options(self):
        """Compile in parallel unless told otherwise."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        """Build every module, or say why there are none."""
        (Path(self.build_lib) / NATIVE / UNBUILT).unlink(missing_ok=True)
        try:
            self._translate()
            # One that is missing makes all useless, so none is optional here.
            for extension in self.extensions:
                extension.optional = False
            super().build_extensions()
        # Cython and the compilers fail in every way there is.
        except Exception as error:
            self._go_without(missing() or reason_of(error))

    def copy_extensions_to_source(self):
        """Put what was built, or why it was not, beside the sources; nothing of an earlier build stays."""
        for path in (SOURCE / NATIVE).glob("*.so"):
            if not (Path(self.build_lib) / NATIVE / path.name).exists():
                path.unlink()
        super().copy_extensions_to_source()
        note = Path(self.build_lib) / NATIVE / UNBUILT
        if note.exists():
            shutil.copy(note, SOURCE / NATIVE)
        else:
            (SOURCE / NATIVE / UNBUILT).unlink(missing_ok=True)

    def _translate(self):
        from Cython.Build import cythonize

        translated = cythonize(
            self.extensions,
            build_dir="build/cython",
            include_path=[str(SOURCE)],
            compiler_directives=DIRECTIVES,
            nthreads=self.parallel,
            force=self.force,
            quiet=True,
        )
        for extension, c_sources in zip(self.extensions, translated, strict=True):
            extension.sources = c_sources.sources

    def _go_without(self, reason):
        for extension in self.extensions:
            extension.optional = True
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        self.warn(f"the native engine is not built, the Python engine is used: {reason}")
        note = Path(self.build_lib) / NATIVE / UNBUILT
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{reason}\n")


def missing():
    """Return which of the things that a build needs is not there; empty where all are."""
    try:
        import Cython.Build  # noqa: F401
    except ImportError as error:
        return f"Cython is missing ({error})"
    if shutil.which(compiler()) is None:
        return f"the C compiler {compiler()} is missing"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return "" if header.exists() else f"Python's headers are missing ({header})"


def reason_of(error):
    """Return in one line what went wrong although all is there."""
    if isinstance(error, BaseError | CCompilerError):
        # A whole command line, of which the program says enough; what it printed stands above.
        return f"the C compiler {compiler()} fails"
    return " ".join(f"{type(error).__name__}: {error}".split())


def compiler():
    """Return the C compiler's name."""
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]


# Processes that Cython starts may import this file.
if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildNative})
