"""The child's side of a pair: two faces or two voices are compared and forgotten.

What describes a face or a voice never leaves this process: only how far apart two are.
"""

import os
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from validators.analysis.models.engines import Engines
from validators.analysis.models.face_detector import LANDMARKS, Picture
from validators.analysis.models.identity import distance
from validators.analysis.wire import (
    BYTES_PER_PIXEL,
    BYTES_PER_SAMPLE,
    MAX_MEDIA_S,
    SAMPLE_RATE_HZ,
    ComparisonRequest,
    FacePairRequest,
    PictureSize,
    VoicePairRequest,
    WireError,
)
from validators.facts import PairFacts, Range

MAX_PICTURE_PIXELS = 1280 * 1280  # what a still image is scaled down to; frames are smaller
MAX_FRAMES = 8
MAX_SAMPLES = int(MAX_MEDIA_S * SAMPLE_RATE_HZ)

Embedding = npt.NDArray[np.float32]


def compare(engines: Engines, request: ComparisonRequest, fds: list[int]) -> PairFacts:
    """Both pipes come from tools of their own, so reading one after the other stops nobody."""
    first, second = (os.fdopen(fd, "rb") for fd in fds)
    with first, second:
        match request:
            case FacePairRequest():
                return _faces(engines, request, first, second)
            case VoicePairRequest():
                return _voices(engines, request, first, second)


def _faces(
    engines: Engines, request: FacePairRequest, still: BinaryIO, frames: BinaryIO
) -> PairFacts:
    """The distance of the still's face from those of the frames, the middle one of all."""
    portrait = _embeddings(engines, pictures(still, request.still, most=1))
    seen = _embeddings(engines, pictures(frames, request.frames, most=MAX_FRAMES))
    used = {name: engines.versions[name] for name in ("faces", "identity")}
    if not portrait or not seen:
        return PairFacts(engines=used)
    distances = [distance(portrait[0], each) for each in seen]
    return PairFacts(face_distance=float(np.median(distances)), engines=used)


def pictures(pipe: BinaryIO, size: PictureSize, *, most: int) -> list[Picture]:
    """Whole pictures up to the end of *pipe*. Raises WireError where they are too large or many."""
    if min(size.width, size.height) < 1 or size.width * size.height > MAX_PICTURE_PIXELS:
        raise WireError(f"pictures of {size.width}x{size.height}")
    each = size.width * size.height * BYTES_PER_PIXEL
    data = pipe.read(most * each + 1)
    if len(data) > most * each:
        raise WireError(f"more than {most} pictures")
    shape = (size.height, size.width, BYTES_PER_PIXEL)
    whole = (data[at * each : (at + 1) * each] for at in range(len(data) // each))
    return [np.frombuffer(picture, np.uint8).reshape(shape) for picture in whole]


def _embeddings(engines: Engines, seen: list[Picture]) -> list[Embedding]:
    """Of the main face of each picture that shows one."""
    looks = ((picture, engines.faces.look(picture).main) for picture in seen)
    return [
        engines.identity.embed(picture, face[LANDMARKS])
        for picture, face in looks
        if face is not None
    ]


def _voices(
    engines: Engines, request: VoicePairRequest, recording: BinaryIO, video: BinaryIO
) -> PairFacts:
    one = _voice(engines, recording, request.recording_speech)
    other = _voice(engines, video, request.video_speech)
    used = {"speakers": engines.versions["speakers"]}
    if one is None or other is None:
        return PairFacts(engines=used)
    return PairFacts(voice_similarity=float(one @ other), engines=used)


def _voice(engines: Engines, pipe: BinaryIO, speech: tuple[Range, ...]) -> Embedding | None:
    """A unit vector, or None where there is too little speech."""
    pcm = pipe.read(MAX_SAMPLES * BYTES_PER_SAMPLE)
    return engines.speakers.embed(pcm[: len(pcm) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE], speech)
