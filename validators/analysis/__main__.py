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

from validators.analysis.models.engines import Engines
from validators.analysis.weights import MODELS_DIR_VARIABLE
from validators.analysis.wire import (
    BYTES_PER_PIXEL,
    BYTES_PER_SAMPLE,
    HEADER,
    MAX_FDS,
    SAMPLE_RATE_HZ,
    Analysis,
    AnalysisRequest,
    FrameStream,
    WireError,
    body_bytes,
    decode_request,
    encode_analysis,
)
from validators.facts import SpeakerFacts, SpeechFacts

MAX_MEDIA_S = 17.0  # decoding stops 1 s past the longest medium that can pass; one more is a bug
MAX_FRAME_PIXELS = 1280 * 1280  # what a still image is scaled down to; video is smaller

_PR_SET_PDEATHSIG = 1


def main() -> None:
    channel_fd, parent = (int(word) for word in sys.argv[1:])
    end_with(parent)
    models_dir = os.environ.get(MODELS_DIR_VARIABLE)
    engines = Engines(Path(models_dir) if models_dir else None)
    with socket.socket(fileno=channel_fd) as channel:
        while received := receive(channel):
            channel.sendall(encode_analysis(analyze(engines, *received)))


def end_with(parent: int) -> None:
    """Have the kernel kill us when *parent* dies, even in the middle of a model."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit("the parent is gone")


def receive(channel: socket.socket) -> tuple[AnalysisRequest, list[int]] | None:
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


def analyze(engines: Engines, request: AnalysisRequest, fds: list[int]) -> Analysis:
    """Read both pipes to their ends at the same time, then measure.

    ffmpeg writes the two in turn and waits for whichever is full: reading one to its end first
    would stop it, and us, for good.
    """
    pipes = [os.fdopen(fd, "rb") for fd in fds]
    samples = SampleReader(pipes.pop()) if request.samples else None
    analysis = Analysis(engines=engines.versions)
    if request.frames is not None:
        with pipes.pop() as pipe:
            faces = engines.faces.measure(frames(pipe, request.frames), request.frames)
        analysis = replace(analysis, faces=faces)
    if samples is not None:
        speech, speakers = voices(engines, samples.finish())
        analysis = replace(analysis, speech=speech, speakers=speakers)
    return analysis


def voices(engines: Engines, pcm: bytes) -> tuple[SpeechFacts, SpeakerFacts]:
    speech = engines.speech.measure(pcm)
    return speech, engines.speakers.measure(pcm, speech.speech)


def frames(pipe: BinaryIO, stream: FrameStream) -> Iterator[bytes]:
    """Whole frames as they come. What is left of a frame that was cut short is dropped."""
    if not 0 < stream.width * stream.height <= MAX_FRAME_PIXELS:
        raise WireError(f"frames of {stream.width}x{stream.height}")
    size = stream.width * stream.height * BYTES_PER_PIXEL
    most = int(MAX_MEDIA_S / stream.interval_s) + 1 if stream.interval_s else 1
    for _ in range(most):
        frame = pipe.read(size)
        if len(frame) < size:
            return
        yield frame
    if pipe.read(1):
        raise WireError(f"more than {most} frames")


class SampleReader:
    """Reads samples to the end of their pipe while the frames are being measured."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._pcm = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        most = int(MAX_MEDIA_S * SAMPLE_RATE_HZ) * BYTES_PER_SAMPLE
        with self._pipe:
            self._pcm = self._pipe.read(most + 1)

    def finish(self) -> bytes:
        """All samples; raise WireError when there were more than any request may carry."""
        self._thread.join()
        if len(self._pcm) > MAX_MEDIA_S * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE:
            raise WireError(f"more than {MAX_MEDIA_S} s of samples")
        return self._pcm[: len(self._pcm) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE]


if __name__ == "__main__":
    main()
