import pytest

from validators.facts import ContainerFacts, StreamFacts
from validators.media.probe import (
    MAX_STREAMS,
    Report,
    UnreadableError,
    input_options,
    summarize,
    without_edited_out,
)

JSON = dict[str, object]


def stream(index: int = 0, **fields: object) -> JSON:
    return {"index": index, "codec_type": "video", "codec_name": "h264"} | fields


def packets(count: int, *, index: int = 0, flags: str = "__", first: int = 0) -> list[JSON]:
    return [
        {
            "stream_index": index,
            "pts_time": f"{n * 0.04:.6f}",
            "duration_time": "0.040000",
            "flags": flags,
        }
        for n in range(first, first + count)
    ]


def report(streams: list[JSON], packets: list[JSON]) -> Report:
    return Report.model_validate({"streams": streams, "packets": packets, "format": {}})


def facts(container: ContainerFacts, index: int = 0) -> StreamFacts:
    return container.streams[index]


def test_packets_are_counted_and_timed() -> None:
    probed = summarize(report([stream()], packets(100)), up_to_s=20)
    assert facts(probed.container).packets == 100
    assert probed.spans[0] == pytest.approx((0, 4.0))
    assert probed.length_s(probed.container.streams) == pytest.approx(4.0)


def test_pre_roll_that_is_discarded_counts_neither_as_shown_nor_as_promised() -> None:
    shown = packets(3, flags="_D") + packets(97, first=3)
    probed = summarize(report([stream(nb_frames="100")], shown), up_to_s=20)
    assert facts(probed.container).packets == 97
    assert facts(probed.container).promised_packets == 97
    assert probed.spans[0][0] == pytest.approx(0.12)


def test_a_line_of_subtitles_makes_nothing_longer() -> None:
    line = {"stream_index": 1, "pts_time": "0", "duration_time": "60", "flags": "K_"}
    streams = [stream(nb_frames="150"), stream(1, codec_type="subtitle", codec_name="mov_text")]
    probed = summarize(report(streams, [line, *packets(100)]), up_to_s=20)
    assert probed.length_s(probed.container.video) == pytest.approx(4.0)
    assert facts(probed.container).promised_packets == 150


def test_streams_without_times_have_no_length() -> None:
    probed = summarize(report([stream()], []), up_to_s=20)
    assert probed.length_s(probed.container.streams) is None


def test_a_sample_table_promises_what_a_truncated_file_does_not_hold() -> None:
    probed = summarize(report([stream(nb_frames="150")], packets(77)), up_to_s=20)
    assert facts(probed.container).promised_packets == 150


def test_a_sample_table_promises_nothing_past_the_part_that_was_read() -> None:
    probed = summarize(report([stream(nb_frames="9000")], packets(500)), up_to_s=20)
    assert facts(probed.container).promised_packets is None


def test_a_table_of_plain_samples_counts_samples_not_packets() -> None:
    sound = stream(codec_type="audio", codec_name="pcm_s16le", nb_frames="240000")
    probed = summarize(report([sound], packets(118)), up_to_s=20)
    assert facts(probed.container).promised_packets is None


@pytest.mark.parametrize(("held", "promised"), [(150, 77), (77, 150), (100, 127)])
def test_what_an_edit_list_leaves_out_is_not_missing(held: int, promised: int) -> None:
    first = report([stream(nb_frames="150")], packets(77))
    container = summarize(first, up_to_s=20).container
    whole = report([stream(nb_frames="150")], packets(held))
    assert facts(without_edited_out(container, first, whole)).promised_packets == promised


def test_cover_art_is_not_a_video_stream() -> None:
    cover = stream(1, codec_name="mjpeg", disposition={"attached_pic": 1})
    sound = stream(0, codec_type="audio", codec_name="mp3")
    probed = summarize(report([sound, cover], packets(9) + packets(1, index=1)), up_to_s=20)
    assert probed.container.video == ()
    assert [s.index for s in probed.container.audio] == [0]


def test_an_empty_stream_is_not_there() -> None:
    sound = stream(1, codec_type="audio", codec_name="aac")
    probed = summarize(report([stream(), sound], packets(9)), up_to_s=20)
    assert probed.container.audio == ()


def matrix(a: int, b: int, c: int, d: int) -> JSON:
    """As ffprobe writes it, in 16.16 fixed point."""
    rows = [(a, b, 0), (c, d, 0), (0, 0, 1 << 14)]
    lines = (f"{n:08d}:  " + "  ".join(str(x << 16) for x in row) for n, row in enumerate(rows))
    return {"displaymatrix": "\n" + "\n".join(lines) + "\n"}


@pytest.mark.parametrize(
    ("numbers", "mirrored", "clockwise"),
    [
        ((1, 0, 0, 1), False, 0),
        ((0, 1, -1, 0), False, 90),
        ((-1, 0, 0, -1), False, 180),
        ((0, -1, 1, 0), False, 270),
        ((-1, 0, 0, 1), True, 0),
        ((0, -1, -1, 0), True, 90),
        ((1, 0, 0, -1), True, 180),
        ((0, 1, 1, 0), True, 270),
    ],
)
def test_a_display_matrix_is_a_mirror_and_a_turn(
    numbers: tuple[int, int, int, int], mirrored: bool, clockwise: int
) -> None:
    turned = stream(width=1920, height=1080, side_data_list=[matrix(*numbers)])
    found = facts(summarize(report([turned], packets(1)), up_to_s=20).container)
    assert (found.mirrored, found.rotation_deg) == (mirrored, clockwise)
    assert found.display_size == ((1080, 1920) if clockwise % 180 else (1920, 1080))


@pytest.mark.parametrize("said", [{}, {"displaymatrix": ""}, {"displaymatrix": "00000000: 1 2"}])
def test_a_senseless_matrix_turns_nothing(said: JSON) -> None:
    found = facts(summarize(report([stream(side_data_list=[said])], []), up_to_s=20).container)
    assert (found.mirrored, found.rotation_deg) == (False, 0)


def test_pixels_are_made_square_by_stretching_the_width() -> None:
    flat = stream(width=540, height=360, sample_aspect_ratio="2:3")
    assert facts(summarize(report([flat], packets(1)), up_to_s=20).container).display_size == (
        360,
        360,
    )


@pytest.mark.parametrize("ratio", ["0:1", "1:0", "N/A", ""])
def test_a_senseless_aspect_is_taken_for_square(ratio: str) -> None:
    odd = stream(width=540, height=360, sample_aspect_ratio=ratio)
    assert facts(summarize(report([odd], packets(1)), up_to_s=20).container).sample_aspect == 1


def test_too_many_streams_are_unreadable() -> None:
    many = [stream(n) for n in range(MAX_STREAMS + 1)]
    with pytest.raises(UnreadableError):
        summarize(report(many, []), up_to_s=20)


def test_every_opening_names_one_demuxer_and_local_protocols() -> None:
    options = input_options("webm")
    assert options["f"] == options["format_whitelist"] == "matroska"
    assert options["protocol_whitelist"] == "file,pipe"
