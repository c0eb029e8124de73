"""Compiled kernels, as that of `sweeps.cpp`: built for this processor when first used, and kept.

That needs a C++ compiler (`$CXX`, `c++`, `g++` or `clang++`) and nothing else; the build takes some
seconds and is kept in `$XDG_CACHE_HOME/cgrnn` (`~/.cache/cgrnn`) under a name made of what it was
built from. Without a compiler all works tensor by tensor, several times slower.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("sweeps.cpp")
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd")
_OUTPUT = ("-shared", "-fPIC", "-w")
# Compilers differ in how they are told to use all of this processor; the last suits any.
_PROCESSOR = ("-march=native", "-mcpu=native", None)


@cache
def library(source: Path = SOURCE) -> ctypes.CDLL | None:
    """The kernel of a source file, built where it is not yet; None where it cannot be."""
    compiler = _compiler()
    folder = _folder()
    for processor in _PROCESSOR:
        if compiler is None:
            break
        command = [compiler, *_FLAGS, *_OUTPUT, *([processor] if processor else [])]
        file = folder / f"{source.stem}-{_digest(command, source)}.so"
        if file.is_file() or _build(command, source, file):
            return ctypes.CDLL(str(file))
    warnings.warn(
        f"no C++ compiler that builds {source.name} (install one, or name it in CXX): "
        "this works without, several times slower",
        stacklevel=2,
    )
    return None


def _compiler() -> str | None:
    wanted = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((found for name in wanted if name and (found := shutil.which(name))), None)


def _folder() -> Path:
    """Where builds are kept; where that cannot be written, a folder of this process alone."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cgrnn"
    try:
        cached.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(cached, os.W_OK):
            return cached
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="cgrnn-"))


def _digest(command: list[str], source: Path) -> str:
    """Of all that a build depends on: the source, the compiler and the processor."""
    version = subprocess.run([command[0], "--version"], capture_output=True).stdout
    processor = platform.machine() + platform.processor()
    described = Path("/proc/cpuinfo")
    if described.is_file():
        lines = described.read_text().splitlines()
        processor += "".join(line for line in lines if line.startswith(("flags", "Features")))[
            :4096
        ]
    files = [source, *sorted(source.parent.glob("*.h"))]
    parts = [*(file.read_bytes() for file in files), " ".join(command).encode(), version]
    return hashlib.sha256(b"\0".join([*parts, processor.encode()])).hexdigest()[:20]


def _build(command: list[str], source: Path, file: Path) -> bool:
    handle, made = tempfile.mkstemp(suffix=".so", dir=file.parent)
    os.close(handle)
    done = subprocess.run([*command, str(source), "-o", made], capture_output=True)
    if done.returncode == 0:
        os.replace(made, file)  # whole, whoever else builds it at the same time
    else:
        os.unlink(made)
    return done.returncode == 0
