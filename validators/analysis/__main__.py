"""The analysis child: models behind a socket, one request at a time, facts only.

It is started with the number of its socket and its parent's process id, and ends with either.
A model that raises ends it too: the traceback goes to stderr, where the parent reads it, and
the next request gets a child whose models are in a known state.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from validators.analysis.comparison import compare
from validators.analysis.models.engines import Engines
from validators.analysis.speaker_choice import SpeakerChoice
from validators.analysis.watch import watch
from validators.analysis.weights import MODELS_DIR_VARIABLE
from validators.analysis.wire import (
    BYTES_PER_SAMPLE,
    HEADER,
    MAX_FDS,
    MAX_MEDIA_S,
    MAX_VIDEO_FRAMES,
    SAMPLE_RATE_HZ,
    Analysis,
    AnalysisRequest,
    FrameStream,
    Request,
    WireError,
    body_bytes,
    decode_request,
    encode_analysis,
    encode_comparison,
)
from validators.facts import SpeakerFacts, SpeechFacts

MAX_FRAME_PIXELS = 1280 * 1280  # what a still image is scaled down to; video is smaller
DRAIN_BYTES = 1 << 20

_PR_SET_PDEATHSIG = 1


def main() -> None:
    channel_fd, parent = (int(word) for word in sys.argv[1:])
    end_with(parent)
    models_dir = os.environ.get(MODELS_DIR_VARIABLE)
    choice = SpeakerChoice.from_environ(os.environ)
    engines = Engines(Path(models_dir) if models_dir else None, choice)
    with socket.socket(fileno=channel_fd) as channel:
        while received := receive(channel):
            channel.sendall(answer(engines, *received))


def end_with(parent: int) -> None:
    """Have the kernel kill us when *parent* dies, even in the middle of a model."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit("the parent is gone")


def receive(channel: socket.socket) -> tuple[Request, list[int]] | None:
    """The next request and its descriptors; None when the parent has hung up."""
    header, fds, _, _ = socket.recv_fds(channel, HEADER.size, MAX_FDS)
    if not header:
        return None
    body = b""
    size = body_bytes(header)
    while len(body) < size:
        part = channel.recv(size - len(body))
        if not part:
            raise WireError("hung up within a request")
        body += part
    request = decode_request(body)
    if len(fds) != request.descriptors:
        raise WireError(f"{len(fds)} descriptors for {request!r}")
    return request, fds


def answer(engines: Engines, request: Request, fds: list[int]) -> bytes:
    if isinstance(request, AnalysisRequest):
        return encode_analysis(analyze(engines, request, fds))
    return encode_comparison(compare(engines, request, fds))


def analyze(engines: Engines, request: AnalysisRequest, fds: list[int]) -> Analysis:
    """Read both pipes to their ends at the same time, then measure.

    ffmpeg writes the two in turn and waits for whichever is full: reading one to its end first
    would stop it, and us, for good. For the same reason what is too much is read and dropped.
    """
    pipes = [os.fdopen(fd, "rb") for fd in fds]
    samples = SampleReader(pipes.pop()) if request.samples else None
    analysis = Analysis(engines=asked(engines.versions, request))
    if request.frames is not None:
        frames = FrameReader(pipes.pop(), request.frames)
        seen = watch(frames, request.frames, engines)
        analysis = replace(
            analysis,
            faces=seen.faces,
            motion=seen.motion,
            overlays=seen.overlays,
            truncated=frames.truncated,
        )
    if samples is not None:
        speech, speakers = voices(engines, samples.finish())
        truncated = analysis.truncated or samples.truncated
        analysis = replace(analysis, speech=speech, speakers=speakers, truncated=truncated)
    return analysis


def asked(versions: dict[str, str], request: AnalysisRequest) -> dict[str, str]:
    """The engines that *request* is for; all of them where it carries nothing."""
    if not request.descriptors:
        return versions
    seen = () if request.frames is None else ("faces", "looks", "overlays")
    known = ("identity",) if request.frames is not None and not request.frames.still else ()
    heard = ("speech", "speakers") if request.samples else ()
    return {name: versions[name] for name in versions if name in {*heard, *seen, *known}}


def voices(engines: Engines, pcm: bytes) -> tuple[SpeechFacts, SpeakerFacts]:
    speech = engines.speech.measure(pcm)
    return speech, engines.speakers.measure(pcm, speech.speech)


class FrameReader:
    """Whole frames as they come. What is left of a frame that was cut short is dropped."""

    def __init__(self, pipe: BinaryIO, stream: FrameStream) -> None:
        if not 0 < stream.width * stream.height <= MAX_FRAME_PIXELS:
            raise WireError(f"frames of {stream.width}x{stream.height}")
        self._pipe = pipe
        self._frame_bytes = stream.frame_bytes
        self._most = 1 if stream.still else MAX_VIDEO_FRAMES
        self.truncated = False  # whether there were more than any medium may hold

    def __iter__(self) -> Iterator[bytes]:
        with self._pipe:
            for _ in range(self._most):
                frame = self._pipe.read(self._frame_bytes)
                if len(frame) < self._frame_bytes:
                    return
                yield frame
            self.truncated = drain(self._pipe)


class SampleReader:
    """Reads samples to the end of their pipe while the frames are being measured."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._pcm = b""
        self._error: Exception | None = None
        self.truncated = False  # whether there were more than any medium may hold
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with self._pipe:
                self._pcm = self._pipe.read(int(MAX_MEDIA_S * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE)
                self.truncated = drain(self._pipe)
        except Exception as exc:  # noqa: BLE001 - raised again by `finish`
            self._error = exc

    def finish(self) -> bytes:
        """All samples, or whatever reading them raised: half a recording must not be judged."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._pcm[: len(self._pcm) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE]


def drain(pipe: BinaryIO) -> bool:
    """Read *pipe* to its end and keep nothing; whether there was anything."""
    surplus = False
    while pipe.read(DRAIN_BYTES):
        surplus = True
    return surplus


if __name__ == "__main__":
    main()
