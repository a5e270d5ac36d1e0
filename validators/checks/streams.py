"""Is it a medium that we take, can it be decoded, and does it hold the streams that it must?"""

from collections.abc import Iterator

from validators.checks.grade import finding, skip
from validators.facts import DecodeFacts, Facts, Kind, StreamFacts, StreamType, TrackFacts
from validators.media.signature import ALLOWED, AUDIO_CODECS, VIDEO_CODECS
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

REPAIR = "Export the file again, or send the original recording."
FORMATS = {
    Kind.VIDEO: "Send MP4, MOV or WebM with H.264, HEVC, VP9 or AV1 and AAC or Opus.",
    Kind.AUDIO: "Send WAV, MP3, M4A, FLAC or Ogg.",
    Kind.IMAGE: "Send a JPEG, PNG or WebP.",
}


def readable(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `unreadable` and `unsupported_format`."""
    unsupported = _unsupported(facts)
    yield _unsupported_finding(facts, unsupported)
    if unsupported is not None:
        yield skip(Code.UNREADABLE, "Skipped, because unsupported_format failed.")
    else:
        yield _unreadable_finding(facts, policy)


def _unsupported(facts: Facts) -> str | None:
    """Why the format is not taken, or None."""
    if facts.size_bytes == 0:
        return "The file is empty."
    if facts.signature is None:
        return f"The bytes are no {facts.kind} that we know."
    if facts.signature not in ALLOWED[facts.kind]:
        return f"The format {facts.signature} is not taken as {facts.kind}."
    unknown = [s.codec for s in _used(facts) if s.codec not in VIDEO_CODECS | AUDIO_CODECS]
    return f"The codec {unknown[0]} is not taken." if unknown else None


def _used(facts: Facts) -> list[StreamFacts]:
    if facts.container is None:
        return []
    video = facts.container.video[:1] if facts.kind is Kind.VIDEO else ()
    return [*video, *facts.container.audio[:1]]


def _unsupported_finding(facts: Facts, why: str | None) -> Finding:
    outcome = Outcome.PASS if why is None else Outcome.FAIL
    message = why or f"The format {facts.signature} is supported."
    return finding(Code.UNSUPPORTED_FORMAT, outcome, message, hint=FORMATS[facts.kind])


def _unreadable_finding(facts: Facts, policy: Policy) -> Finding:
    if (why := _unopened(facts)) is not None:
        return finding(Code.UNREADABLE, Outcome.FAIL, why, hint=REPAIR)
    if facts.kind is Kind.IMAGE:
        return finding(Code.UNREADABLE, Outcome.PASS, "The picture decodes.")
    if facts.decode is None:
        return skip(Code.UNREADABLE, "Not decoded, because an earlier check failed.")
    if not facts.decode.complete:
        message = "The decoder gave up before the end."
        return finding(Code.UNREADABLE, Outcome.FAIL, message, hint=REPAIR)
    if facts.truncated or _runs_fast(facts.decode, policy):
        message = "More comes out of the decoder than a recording of its length can hold."
        return finding(Code.UNREADABLE, Outcome.FAIL, message, hint=REPAIR)
    share = min(_decoded_shares(facts, policy), default=0.0)
    if facts.decode.capped and share > 0:
        return skip(Code.UNREADABLE, "Not counted, because decoding stopped past the limit.")
    limit = policy.min_decoded_share
    outcome = Outcome.FAIL if share < limit else Outcome.PASS
    message = f"{share:.0%} of the packets decode."
    return finding(
        Code.UNREADABLE, outcome, message, value=share, limit=limit, unit="share", hint=REPAIR
    )


def _unopened(facts: Facts) -> str | None:
    """Why there is nothing to decode, or None."""
    if facts.unreadable is not None:
        return facts.unreadable
    if facts.kind is Kind.AUDIO and facts.container is not None and not facts.container.audio:
        return "The file holds no sound that can be played."
    unsized = [s for s in _used(facts) if s.type is StreamType.VIDEO and not s.sized]
    return "The picture does not say how large it is." if unsized else None


def _runs_fast(decode: DecodeFacts, policy: Policy) -> bool:
    """Whether packets overlap in time: a player plays them all, and longer than the times say."""
    track = decode.audio
    return track is not None and track.units_s > track.duration_s + policy.clock_error_s


def _decoded_shares(facts: Facts, policy: Policy) -> Iterator[float]:
    """For each stream, how much of what is in the file, or in its sample table, decodes."""
    if facts.decode is None:
        return
    tracks = {"video": facts.decode.video, "audio": facts.decode.audio}
    for stream in _used(facts):
        yield _decoded_share(stream, tracks[stream.type], policy)


def _decoded_share(stream: StreamFacts, track: TrackFacts | None, policy: Policy) -> float:
    if track is None:
        return 0.0
    expected = max(stream.packets, stream.promised_packets or 0)
    lost = expected - track.units
    return 1.0 if lost <= policy.lost_packets else track.units / expected


def present(facts: Facts, _: Policy) -> Iterator[Finding]:
    """Owns `no_video_stream`, `no_audio_stream` and `extra_streams`."""
    container = facts.container
    if container is None:
        why = "The container could not be opened."
        for code in (Code.NO_VIDEO_STREAM, Code.NO_AUDIO_STREAM, Code.EXTRA_STREAMS):
            yield skip(code, why)
        return
    yield _presence(Code.NO_VIDEO_STREAM, "video", len(container.video))
    yield _presence(Code.NO_AUDIO_STREAM, "audio", len(container.audio))
    extra = max(len(container.video), len(container.audio))
    yield finding(
        Code.EXTRA_STREAMS,
        Outcome.FAIL if extra > 1 else Outcome.PASS,
        f"{len(container.video)} video and {len(container.audio)} audio streams.",
        value=extra,
        limit=1,
        unit="streams",
        hint="Keep one video and one audio stream: nobody can know which would be used.",
    )


def _presence(code: Code, name: str, streams: int) -> Finding:
    if streams:
        return finding(code, Outcome.PASS, f"There is {name}.", value=streams, unit="streams")
    message = f"The file holds no {name} that can be played."
    hint = f"Send a file with {name}; cover art and empty streams do not count."
    return finding(code, Outcome.FAIL, message, value=0, limit=1, unit="streams", hint=hint)
