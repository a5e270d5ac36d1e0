"""Still images: decoded by Pillow in a confined child, measured from what it says.

No decoder runs in a process that holds credentials, so the parent sees a line of JSON and the
analysis child sees the pixels.
"""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from validators.errors import ToolCrashedError, ToolSpentError
from validators.facts import PictureFacts
from validators.media.sandbox import Sandbox
from validators.media.spending import OPENING_S

FRAME_SIDE = 1280
PILLOW_FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF"}
UNREADABLE = "The picture cannot be decoded."


class _Report(BaseModel):
    width: int | None = None
    height: int | None = None
    frames: int = 1
    frame: tuple[int, int] | None = None
    unreadable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What the child said. `frame` is the size of the frame that it writes, None for none."""

    facts: PictureFacts | None  # None: not even the header could be read
    frame: tuple[int, int] | None = None
    unreadable: str | None = None
    strained: bool = False  # stopped for what it used up, or refused memory


async def decode_picture(
    path: Path,
    signature: str,
    sandbox: Sandbox,
    *,
    max_pixels: int,
    frame_fd: int,
    opened: asyncio.Future[Picture],
) -> None:
    """Decode *path* into *frame_fd*, which is taken over, as one bgr24 frame.

    *opened* is set as soon as the picture is known, before its frame is written: the reader of
    the frame must know its size. Raises InspectionError.
    """
    words = [PILLOW_FORMATS[signature], str(max_pixels), str(FRAME_SIDE), str(frame_fd), str(path)]
    argv = [sys.executable, "-I", "-B", "-m", "validators.media.still", *words]
    said = bytearray()

    def listen(chunk: bytes) -> None:
        said.extend(chunk)
        if b"\n" in said and not opened.done():
            opened.set_result(parse(said.partition(b"\n")[0]))

    try:
        completed = await sandbox.run(
            argv, reads=[path], pass_fds=[frame_fd], on_stdout=listen, cpu_s=OPENING_S
        )
    except ToolSpentError:
        if opened.done():  # then it is our reader that its frame was too much for
            raise
        opened.set_result(Picture(facts=None, unreadable=UNREADABLE, strained=True))
        return
    if opened.done():
        return
    if completed.refused_memory and not completed.starved:  # a chunk's length may say anything
        opened.set_result(Picture(facts=None, unreadable=UNREADABLE, strained=True))
    else:  # it tells bad pictures itself, so its silence is no picture's fault
        last = completed.stderr.strip().rpartition("\n")[2]
        raise ToolCrashedError(f"the picture decoder ended with {completed.status}: {last}")


def parse(line: bytes | bytearray) -> Picture:
    """One line of the child's. Raises ToolCrashedError where it makes no sense."""
    try:
        report = _Report.model_validate_json(line)
    except ValidationError as exc:
        raise ToolCrashedError("the picture decoder does not make sense") from exc
    if report.width is None or report.height is None:
        return Picture(facts=None, unreadable=UNREADABLE)
    facts = PictureFacts(width=report.width, height=report.height, frames=report.frames)
    unreadable = UNREADABLE if report.unreadable else None
    return Picture(facts=facts, frame=report.frame, unreadable=unreadable)
