"""Whatever ffprobe and ffmpeg print of a hostile medium: facts, a refusal or a typed error."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from validators.encoding import decode_facts, decode_verdict, encode_facts, encode_verdict
from validators.errors import ToolCrashedError, UnmeasuredError
from validators.facts import (
    FACTS_VERSION,
    ContainerFacts,
    Facts,
    Kind,
    StreamFacts,
    StreamType,
)
from validators.media.decode import FRAME_SIDE, Plan, Timeline, frame_size
from validators.media.probe import Report, UnreadableError, summarize
from validators.policy import STANDARD
from validators.rules import judge, obstacle

CODECS = ("h264", "mjpeg", "aac", "pcm_s16le", "unknown", "hdmv_pgs_subtitle")
TEXTS = st.one_of(
    st.text(max_size=8), st.sampled_from(["1:1", "0:1", "1/0", "-1/2", "nan", "1e999"])
)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63).map(str),
    st.sampled_from(["nan", "inf", "-inf", "1e308", "-0.0", "9223372036854.775807"]),
    st.floats(-1e13, 1e13).map("{:.6f}".format),
)
COUNTS = st.one_of(st.integers(-2, 5), st.integers(-(2**31), 2**31))
MATRICES = st.lists(st.integers(-(2**31), 2**31), min_size=7, max_size=10).map(
    lambda numbers: "".join(f"\n0000000{at}: {n}" for at, n in enumerate(numbers))
)


SEEN = StreamFacts(index=0, type=StreamType.VIDEO, codec="h264", width=320, height=240, packets=5)
HEARD = StreamFacts(index=1, type=StreamType.AUDIO, codec="aac", packets=5)
PLAN = Plan(
    signature="matroska",
    size_bytes=1,
    video=SEEN,
    audio=HEARD,
    up_to_s=16,
    max_pixels=1_000_000,
)


def sometimes(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object in which each of *fields* may be missing."""
    return st.fixed_dictionaries({}, optional=fields)


STREAMS = st.builds(
    lambda index, rest: {"index": index, **rest},
    st.integers(0, 3),
    sometimes(
        codec_type=st.sampled_from(["video", "audio", "subtitle", ""]),
        codec_name=st.sampled_from(CODECS),
        codec_tag_string=TEXTS,
        width=COUNTS,
        height=COUNTS,
        sample_aspect_ratio=TEXTS,
        avg_frame_rate=TEXTS,
        sample_rate=COUNTS.map(str),
        channels=COUNTS,
        duration=NUMBERS,
        nb_frames=COUNTS.map(str),
        disposition=sometimes(attached_pic=st.integers(0, 1)),
        side_data_list=st.lists(sometimes(displaymatrix=MATRICES), max_size=2),
    ),
)
PACKETS = st.builds(
    lambda index, rest: {"stream_index": index, **rest},
    st.integers(0, 3),
    sometimes(pts_time=NUMBERS, duration_time=NUMBERS, flags=st.sampled_from(["K_", "_D", ""])),
)
REPORTS = st.fixed_dictionaries(
    {
        "streams": st.lists(STREAMS, max_size=4),
        "packets": st.lists(PACKETS, max_size=8),
        "format": sometimes(format_name=TEXTS, duration=NUMBERS),
    }
)


TIMES = st.one_of(st.integers(-(2**63), 2**63), st.integers(-100, 100_000))
LINES = st.builds("{}, {}, {}, {}, 256, 0x0".format, st.integers(0, 1), TIMES, TIMES, TIMES)
OTHER_LINES = st.sampled_from(["#tb 1: 0/1", "#tb 1: 1/0", "#media_type 0: video", "", "0, 1", "?"])


@given(REPORTS, st.sampled_from([Kind.VIDEO, Kind.AUDIO]))
def test_a_report_of_ffprobe_is_facts_or_a_refusal(report: dict[str, Any], kind: Kind) -> None:
    try:
        parsed = Report.model_validate(json.loads(json.dumps(report)))
    except ValidationError:
        return  # `probe` refuses it
    try:
        probed = summarize(parsed, up_to_s=21)
    except UnreadableError:
        return
    facts = Facts(
        version=FACTS_VERSION,
        kind=kind,
        size_bytes=9,
        sha256="0" * 64,
        signature="matroska",
        container=probed.container,
    )
    probed.length_s(probed.container.streams)
    expect_storable(facts)
    if obstacle(facts, STANDARD) is None and kind is Kind.VIDEO:
        width, height = frame_size(probed.container.video[0])
        assert 0 < width <= FRAME_SIDE
        assert 0 < height <= FRAME_SIDE


@given(st.lists(st.one_of(LINES, LINES, OTHER_LINES), max_size=12))
def test_a_timeline_of_ffmpeg_is_facts_or_a_crash_of_ffmpeg(lines: list[str]) -> None:
    timeline = Timeline(on_time=lambda _: None, seeing=True)
    text = "\n".join(["#tb 0: 1/90000", "#tb 1: 1/16000", *lines, ""])
    try:
        timeline.feed(text.encode())
    except ToolCrashedError:
        return
    decoded = timeline.facts(PLAN, complete=True)
    facts = Facts(
        version=FACTS_VERSION,
        kind=Kind.VIDEO,
        size_bytes=9,
        sha256="0" * 64,
        signature="matroska",
        container=ContainerFacts(format="matroska", declared_duration_s=5, streams=(SEEN, HEARD)),
        decode=decoded,
    )
    expect_storable(facts)


def expect_storable(facts: Facts) -> None:
    """It can be kept and judged again, and so can its verdict; no number is endless."""
    assert decode_facts(encode_facts(facts)) == facts
    try:
        verdict = judge(facts, STANDARD)
    except UnmeasuredError:  # a model would have looked at it
        return
    assert decode_verdict(encode_verdict(verdict)) == verdict
