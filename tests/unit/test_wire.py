import pytest

from validators.analysis.wire import (
    HEADER,
    MAX_FRAME_BYTES,
    Analysis,
    AnalysisRequest,
    FrameStream,
    WireError,
    body_bytes,
    decode_analysis,
    decode_request,
    encode_analysis,
    encode_request,
)
from validators.facts import Face, FaceFacts, FrameFacts, Kind, SpeakerFacts, SpeechFacts

VIDEO = FrameStream(width=640, height=360, per_s=25)
FULL = Analysis(
    engines={"faces": "a@1"},
    speech=SpeechFacts(duration_s=4.5, speech=((0.1, 2.0), (2.5, 4.0)), snr_db=31.5),
    speakers=SpeakerFacts(
        score=-2.5, second_voice_s=0.5, second_voice=((1.0, 1.5),), features={"soft2": 0.25}
    ),
    faces=FaceFacts(
        frames=(
            FrameFacts(
                time_s=0.2,
                faces=(
                    Face(left=0.25, top=0.5, width=0.125, height=0.25, confidence=0.9),
                    Face(left=-0.1, top=0, width=0.1, height=0.1, confidence=0.6, confirmation=0.3),
                ),
            ),
        ),
        interval_s=0.2,
    ),
    truncated=True,
)


@pytest.mark.parametrize(
    ("frames", "samples", "descriptors"), [(None, False, 0), (None, True, 1), (VIDEO, True, 2)]
)
def test_a_request_survives_the_wire_and_counts_its_pipes(
    frames: FrameStream | None, samples: bool, descriptors: int
) -> None:
    request = AnalysisRequest(kind=Kind.VIDEO, frames=frames, samples=samples)
    message = encode_request(request)
    assert body_bytes(message[: HEADER.size]) == len(message) - HEADER.size
    assert decode_request(message[HEADER.size :]) == request
    assert request.descriptors == descriptors


@pytest.mark.parametrize("analysis", [Analysis(), FULL])
def test_an_analysis_survives_the_wire(analysis: Analysis) -> None:
    assert decode_analysis(encode_analysis(analysis)[HEADER.size :]) == analysis


@pytest.mark.parametrize("body", [b"", b"{not ", b"[]", b'{"speech": 3}'])
def test_what_is_no_analysis_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        decode_analysis(body)


@pytest.mark.parametrize("body", [b"{}", b'{"kind": "hologram", "frames": null, "samples": true}'])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        decode_request(body)


def test_a_frame_may_be_as_long_as_its_limit_and_no_longer() -> None:
    assert body_bytes(HEADER.pack(MAX_FRAME_BYTES)) == MAX_FRAME_BYTES
    with pytest.raises(WireError):
        body_bytes(HEADER.pack(MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize("header", [b"", b"\0\0\0"])
def test_a_header_that_was_cut_short_is_refused(header: bytes) -> None:
    with pytest.raises(WireError):
        body_bytes(header)


def test_an_answer_too_long_to_be_read_is_never_sent() -> None:
    with pytest.raises(WireError):
        encode_analysis(Analysis(engines={"noise": "x" * MAX_FRAME_BYTES}))


def test_the_largest_answer_that_faces_can_give_fits_a_frame() -> None:
    face = Face(
        left=1 / 3, top=1 / 3, width=1 / 3, height=1 / 3, confidence=2 / 3, confirmation=1 / 3
    )
    frames = tuple(FrameFacts(time_s=number / 3, faces=(face,) * 16) for number in range(86))
    assert encode_analysis(Analysis(faces=FaceFacts(frames=frames, interval_s=0.2)))
