"""What the child is sent to compare, and what becomes of a child that cannot answer."""

import io
import os
import sys

import pytest

from validators.analysis.client import Analyzer
from validators.analysis.comparison import MAX_FRAMES, pictures
from validators.analysis.wire import (
    HEADER,
    AnalysisRequest,
    FacePairRequest,
    PictureSize,
    Request,
    VoicePairRequest,
    WireError,
    decode_comparison,
    decode_request,
    encode_comparison,
    encode_request,
)
from validators.errors import AnalysisCrashedError
from validators.facts import Kind, PairFacts

FAKE_CHILD = (sys.executable, "-m", "tests.fakes.analysis_child")
SIZE = PictureSize(width=4, height=2)
FRAME = bytes(range(24))
FACES = FacePairRequest(still=SIZE, frames=PictureSize(width=640, height=360))
VOICES = VoicePairRequest(recording_speech=((0.5, 2.0),), video_speech=())


@pytest.mark.parametrize(
    "request_", [FACES, VOICES, AnalysisRequest(kind=Kind.AUDIO, frames=None, samples=True)]
)
def test_a_request_comes_through_as_what_it_is(request_: Request) -> None:
    assert decode_request(encode_request(request_)[HEADER.size :]) == request_


def test_an_answer_comes_through() -> None:
    facts = PairFacts(face_distance=0.25, voice_similarity=None, engines={"identity": "dlib@1"})
    assert decode_comparison(encode_comparison(facts)[HEADER.size :]) == facts
    with pytest.raises(WireError):
        decode_comparison(b'{"face_distance": [0.1, 0.2]}')


def test_whole_pictures_are_read_and_half_a_one_is_dropped() -> None:
    read = pictures(io.BytesIO(FRAME * 2 + FRAME[:7]), SIZE, most=MAX_FRAMES)
    assert [picture.tobytes() for picture in read] == [FRAME, FRAME]
    assert read[0].shape == (2, 4, 3)
    assert pictures(io.BytesIO(), SIZE, most=1) == []


def test_no_more_and_no_larger_pictures_are_read_than_agreed() -> None:
    with pytest.raises(WireError, match="more than 1"):
        pictures(io.BytesIO(FRAME * 2), SIZE, most=1)
    for width, height in ((1281, 1280), (0, 4), (-4, -4)):
        with pytest.raises(WireError, match="pictures of"):
            pictures(io.BytesIO(), PictureSize(width=width, height=height), most=1)


def pipe_with(words: str) -> int:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(words.encode())
    return read_end


async def test_a_child_that_dies_of_a_pair_is_replaced() -> None:
    async with Analyzer(timeout_s=10, argv=FAKE_CHILD) as analyzer:
        first = await analyzer.compare(VOICES, [pipe_with("answer"), pipe_with("")])
        with pytest.raises(AnalysisCrashedError):
            await analyzer.compare(VOICES, [pipe_with("garbage"), pipe_with("")])
        assert analyzer.restarts == 1
        again = await analyzer.compare(VOICES, [pipe_with("answer"), pipe_with("")])
    assert first.engines["pid"] != again.engines["pid"]


async def test_a_pair_has_two_descriptors_and_they_are_closed_where_it_has_not() -> None:
    async with Analyzer(argv=FAKE_CHILD) as analyzer:
        lone = pipe_with("answer")
        with pytest.raises(ValueError, match="1 descriptors"):
            await analyzer.compare(FACES, [lone])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(lone)
