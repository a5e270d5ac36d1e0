"""Container facts from packets that were read, not from what a header says.

ffprobe opens the input with the one demuxer that the signature names: neither a protocol nor
a format list alone keeps a playlist from opening another tenant's file.
"""

import asyncio
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, ValidationError

from validators.errors import ToolSpentError
from validators.facts import ContainerFacts, Range, StreamFacts, StreamType
from validators.media.sandbox import MAX_ALLOC_BYTES, Completed, Sandbox, complaints
from validators.media.signature import demuxer
from validators.media.spending import OPENING_S

ENTRIES = (
    "format=format_name,duration"
    ":stream=index,codec_type,codec_name,codec_tag_string,width,height,sample_aspect_ratio,avg_frame_rate,"
    "sample_rate,channels,duration,nb_frames"
    ":stream_disposition=attached_pic"
    ":stream_side_data=displaymatrix"
    ":packet=stream_index,pts_time,duration_time,flags"
)
MAX_STREAMS = 32
MATRIX_NUMBERS = 9
PLAYED = frozenset({"video", "audio"})  # a line of subtitles may stand for minutes
PACKET_S = 1.0  # longer than any packet: the last one read may begin so far before the end


class UnreadableError(Exception):
    """The medium cannot be opened. A finding for the caller, not a failure of ours."""

    def __init__(self, why: str, *, strained: bool = False) -> None:
        super().__init__(why)
        self.strained = strained  # it took more than it may have, which depends on the machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Container facts, and when the packets of each stream that were read begin and end."""

    container: ContainerFacts
    spans: Mapping[int, Range]  # by index; a stream of which no packet carries a time has none

    def length_s(self, streams: Iterable[StreamFacts]) -> float | None:
        """From the first packet of *streams* to the end of the last; None: none has a time."""
        spans = [self.spans[stream.index] for stream in streams if stream.index in self.spans]
        return max(end for _, end in spans) - min(start for start, _ in spans) if spans else None


class _Packet(BaseModel):
    stream_index: int
    pts_time: FiniteFloat | None = None
    duration_time: FiniteFloat = 0.0
    flags: str = ""

    @property
    def discarded(self) -> bool:
        return "D" in self.flags


class _Disposition(BaseModel):
    attached_pic: int = 0


class _SideData(BaseModel):
    displaymatrix: str | None = None


class _Stream(BaseModel):
    index: int
    codec_type: str = ""
    codec_name: str = "unknown"
    codec_tag_string: str = ""
    width: NonNegativeInt | None = None
    height: NonNegativeInt | None = None
    sample_aspect_ratio: str = ""
    avg_frame_rate: str = ""
    sample_rate: int | None = None
    channels: int | None = None
    duration: FiniteFloat | None = None
    nb_frames: int | None = None
    disposition: _Disposition = _Disposition()
    side_data_list: list[_SideData] = []

    @property
    def codec(self) -> str:
        """ffmpeg's name, or what the container calls it where ffmpeg has none."""
        unnamed = self.codec_name == "unknown" and "[" not in self.codec_tag_string
        return self.codec_tag_string if unnamed and self.codec_tag_string else self.codec_name


class _Format(BaseModel):
    format_name: str = ""
    duration: FiniteFloat | None = None


class Report(BaseModel):
    """What `ffprobe -of json` prints for ENTRIES. Raises pydantic's ValidationError."""

    packets: list[_Packet] = []
    streams: list[_Stream] = []
    format: _Format = Field(default_factory=_Format)


def input_options(signature: str) -> dict[str, str]:
    """What every opening of a medium says: this demuxer alone, local files alone."""
    only = demuxer(signature)
    return {"f": only, "format_whitelist": only, "protocol_whitelist": "file,pipe"}


async def probe(
    path: Path, signature: str, sandbox: Sandbox, *, ffprobe: str, up_to_s: float
) -> Probe:
    """Read the packets of the first *up_to_s*. Raises UnreadableError and InspectionError."""
    arguments = _arguments(path, signature, up_to_s)
    report = await _report(path, sandbox, [ffprobe, *arguments])
    first = summarize(report, up_to_s=up_to_s)
    if not any(_missing(stream) for stream in first.container.streams):
        return first
    again = ["-ignore_editlist", "1"] if demuxer(signature) == "mov" else []
    whole = await _report(path, sandbox, [ffprobe, *again, *arguments])
    return replace(first, container=without_edited_out(first.container, report, whole))


def _arguments(path: Path, signature: str, up_to_s: float) -> list[str]:
    options = [
        word for name, value in input_options(signature).items() for word in (f"-{name}", value)
    ]
    interval = ["-read_intervals", f"%+{up_to_s:g}"]
    shown = ["-show_entries", ENTRIES, "-of", "json=compact=1"]
    modest = ["-max_alloc", str(MAX_ALLOC_BYTES)]
    return ["-v", "error", "-hide_banner", *modest, *options, *interval, *shown, f"file:{path}"]


async def _report(path: Path, sandbox: Sandbox, argv: list[str]) -> Report:
    try:
        completed = await sandbox.run(argv, reads=[path], cpu_s=OPENING_S)
    except ToolSpentError as exc:
        raise UnreadableError("The container takes too long to read.", strained=True) from exc
    return await asyncio.to_thread(_parsed, completed, path)  # a hostile one is long


def _parsed(completed: Completed, path: Path) -> Report:
    if completed.overflowed:
        raise UnreadableError("The file holds more packets than any recording of its length.")
    if completed.stderr or not completed.stdout:  # it gives up silently on some settings of codecs
        complaints(completed, path)
    if completed.status != 0:
        why = "The container cannot be opened."
        raise UnreadableError(why, strained=completed.refused_memory)
    try:
        return Report.model_validate(json.loads(completed.stdout))
    except (ValidationError, ValueError) as exc:
        raise UnreadableError(
            "The container describes itself in a way that makes no sense."
        ) from exc


def summarize(report: Report, *, up_to_s: float) -> Probe:
    """Facts from one report. A sample table promises nothing past the part that was read."""
    if len(report.streams) > MAX_STREAMS:
        raise UnreadableError(f"The file holds {len(report.streams)} streams.")
    spans = _spans(report)
    played = [spans[s.index] for s in report.streams if s.index in spans and s.codec_type in PLAYED]
    start_s = min((start for start, _ in played), default=0.0)
    cut_off = any(end - start_s >= up_to_s - PACKET_S for _, end in played)
    streams = tuple(
        _stream_facts(stream, _of_stream(report, stream.index), cut_off=cut_off)
        for stream in report.streams
    )
    container = ContainerFacts(
        format=report.format.format_name,
        declared_duration_s=report.format.duration,
        streams=streams,
    )
    return Probe(container=container, spans=spans)


def _spans(report: Report) -> dict[int, Range]:
    spans: dict[int, Range] = {}
    for packet in report.packets:
        if packet.pts_time is None or packet.discarded:
            continue
        end_s = packet.pts_time + packet.duration_time
        known = spans.get(packet.stream_index, (packet.pts_time, end_s))
        spans[packet.stream_index] = min(known[0], packet.pts_time), max(known[1], end_s)
    return spans


def _stream_facts(stream: _Stream, packets: list[_Packet], *, cut_off: bool) -> StreamFacts:
    discarded = sum(packet.discarded for packet in packets)
    promised = None if cut_off else _promised(stream, discarded)
    mirrored, rotation_deg = _orientation(stream.side_data_list)
    return StreamFacts(
        index=stream.index,
        type=_stream_type(stream.codec_type),
        codec=stream.codec,
        attached_picture=bool(stream.disposition.attached_pic),
        width=stream.width,
        height=stream.height,
        sample_aspect=_ratio(stream.sample_aspect_ratio) or 1.0,
        mirrored=mirrored,
        rotation_deg=rotation_deg,
        declared_fps=_ratio(stream.avg_frame_rate),
        sample_rate_hz=stream.sample_rate,
        channels=stream.channels,
        declared_duration_s=stream.duration,
        packets=len(packets) - discarded,
        promised_packets=promised,
    )


def _promised(stream: _Stream, discarded: int) -> int | None:
    """Of plain samples the table counts each one, and a packet holds hundreds."""
    if stream.nb_frames is None or stream.codec_name.startswith("pcm_"):
        return None
    return stream.nb_frames - discarded


def _missing(stream: StreamFacts) -> bool:
    return stream.promised_packets is not None and stream.promised_packets > stream.packets


def without_edited_out(container: ContainerFacts, first: Report, whole: Report) -> ContainerFacts:
    """Samples that an edit list leaves out are in the file, so they are not promised."""
    streams = []
    for stream in container.streams:
        shown, held = len(_of_stream(first, stream.index)), len(_of_stream(whole, stream.index))
        promised = stream.promised_packets
        if promised is not None and held > shown:
            promised = max(stream.packets, promised - (held - shown))
        streams.append(replace(stream, promised_packets=promised))
    return replace(container, streams=tuple(streams))


def _of_stream(report: Report, index: int) -> list[_Packet]:
    return [packet for packet in report.packets if packet.stream_index == index]


def _stream_type(codec_type: str) -> StreamType:
    return StreamType(codec_type) if codec_type in {"video", "audio"} else StreamType.OTHER


def _orientation(side_data: Iterable[_SideData]) -> tuple[bool, int]:
    """Whether a viewer mirrors the picture, and how far it then turns it: clockwise, in quarters.

    A display matrix (a b u, c d v, x y w) puts the point (x, y) at (a x + c y, b x + d y). Where
    its determinant is negative it mirrors; its angle alone would say a turn by 180 degrees.
    """
    matrices = [data.displaymatrix for data in side_data if data.displaymatrix]
    numbers = [word for line in matrices[:1] for word in line.split() if not word.endswith(":")]
    if len(numbers) != MATRIX_NUMBERS:
        return False, 0
    a, b, c, d = (int(numbers[at]) for at in (0, 1, 3, 4))
    mirrored = a * d - b * c < 0
    across, down = (-a, -b) if mirrored else (a, b)
    return mirrored, round(math.degrees(math.atan2(down, across)) / 90) * 90 % 360


def _ratio(text: str) -> float | None:
    """`25/1` or `4:3` as a number; None where it is nothing or endless."""
    try:
        value = float(Fraction(text.replace(":", "/")))
    except (ValueError, ArithmeticError):
        return None
    return value if value > 0 else None
