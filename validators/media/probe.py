"""Container facts from packets that were read, not from what a header says.

ffprobe opens the input with the one demuxer that the signature names: neither a protocol nor
a format list alone keeps a playlist from opening another tenant's file.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from validators.facts import ContainerFacts, StreamFacts, StreamType
from validators.media.sandbox import Completed, Sandbox
from validators.media.signature import demuxer

ENTRIES = (
    "format=format_name,duration"
    ":stream=index,codec_type,codec_name,width,height,sample_aspect_ratio,avg_frame_rate,"
    "sample_rate,channels,duration,nb_frames"
    ":stream_disposition=attached_pic"
    ":stream_side_data=rotation"
    ":packet=stream_index,pts_time,duration_time,flags"
)
MAX_STREAMS = 32
PACKET_S = 1.0  # longer than any packet: the last one read may begin so far before the end


class UnreadableError(Exception):
    """The medium cannot be opened. A finding for the caller, not a failure of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Container facts, and when the packets that were read begin and end."""

    container: ContainerFacts
    start_s: float | None = None  # None: no packet carries a time
    end_s: float | None = None

    @property
    def length_s(self) -> float | None:
        return None if self.start_s is None or self.end_s is None else self.end_s - self.start_s


class _Packet(BaseModel):
    stream_index: int
    pts_time: float | None = None
    duration_time: float = 0.0
    flags: str = ""

    @property
    def discarded(self) -> bool:
        return "D" in self.flags


class _Disposition(BaseModel):
    attached_pic: int = 0


class _SideData(BaseModel):
    rotation: float | None = None


class _Stream(BaseModel):
    index: int
    codec_type: str = ""
    codec_name: str = "unknown"
    width: int | None = None
    height: int | None = None
    sample_aspect_ratio: str = ""
    avg_frame_rate: str = ""
    sample_rate: int | None = None
    channels: int | None = None
    duration: float | None = None
    nb_frames: int | None = None
    disposition: _Disposition = _Disposition()
    side_data_list: list[_SideData] = []


class _Format(BaseModel):
    format_name: str = ""
    duration: float | None = None


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
    report = await _report(sandbox, [ffprobe, *arguments])
    first = summarize(report, up_to_s=up_to_s)
    if not any(_missing(stream) for stream in first.container.streams):
        return first
    again = ["-ignore_editlist", "1"] if demuxer(signature) == "mov" else []
    whole = await _report(sandbox, [ffprobe, *again, *arguments])
    return replace(first, container=without_edited_out(first.container, report, whole))


def _arguments(path: Path, signature: str, up_to_s: float) -> list[str]:
    options = [
        word for name, value in input_options(signature).items() for word in (f"-{name}", value)
    ]
    interval = ["-read_intervals", f"%+{up_to_s:g}"]
    shown = ["-show_entries", ENTRIES, "-of", "json=compact=1"]
    return ["-v", "error", "-hide_banner", *options, *interval, *shown, f"file:{path}"]


async def _report(sandbox: Sandbox, argv: list[str]) -> Report:
    return await asyncio.to_thread(_parsed, await sandbox.run(argv))  # a hostile one is long


def _parsed(completed: Completed) -> Report:
    if completed.overflowed:
        raise UnreadableError("The file holds more packets than any recording of its length.")
    if completed.status != 0:
        raise UnreadableError("The container cannot be opened.")
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
    times = [
        packet for packet in report.packets if packet.pts_time is not None and not packet.discarded
    ]
    start_s = min((packet.pts_time or 0.0 for packet in times), default=None)
    end_s = max(((packet.pts_time or 0.0) + packet.duration_time for packet in times), default=None)
    cut_off = start_s is not None and end_s is not None and end_s - start_s >= up_to_s - PACKET_S
    streams = tuple(
        _stream_facts(stream, _of_stream(report, stream.index), cut_off=cut_off)
        for stream in report.streams
    )
    container = ContainerFacts(
        format=report.format.format_name,
        declared_duration_s=report.format.duration,
        streams=streams,
    )
    return Probe(container=container, start_s=start_s, end_s=end_s)


def _stream_facts(stream: _Stream, packets: list[_Packet], *, cut_off: bool) -> StreamFacts:
    discarded = sum(packet.discarded for packet in packets)
    promised = None if cut_off else _promised(stream, discarded)
    return StreamFacts(
        index=stream.index,
        type=_stream_type(stream.codec_type),
        codec=stream.codec_name,
        attached_picture=bool(stream.disposition.attached_pic),
        width=stream.width,
        height=stream.height,
        sample_aspect=_ratio(stream.sample_aspect_ratio) or 1.0,
        rotation_deg=_rotation(stream.side_data_list),
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


def _rotation(side_data: Iterable[_SideData]) -> int:
    """Clockwise, in quarter turns. A display matrix counts the other way."""
    turns = [data.rotation for data in side_data if data.rotation is not None]
    return round(-turns[0] / 90) * 90 % 360 if turns else 0


def _ratio(text: str) -> float | None:
    """`25/1` or `4:3` as a number; None where it is nothing or endless."""
    try:
        value = float(Fraction(text.replace(":", "/")))
    except (ValueError, ZeroDivisionError):
        return None
    return value if value > 0 else None
