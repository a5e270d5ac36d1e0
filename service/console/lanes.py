"""What is drawn on the time axis: a lane for each thing that the facts tell over time.

Ranges come from findings where a rule has judged them, so that the picture cannot disagree with
the verdict; only what no rule ranges is read off the facts themselves.
"""

import math
from collections.abc import Iterator, Sequence

from service.console.axis import (
    Axis,
    Lane,
    bars,
    curve,
    filled,
    height_of,
    joined,
    marks,
    ticks,
    waveform,
    without,
)
from service.console.readout import amount, count, moment, spans
from validators.checks.seen import Seen, seen
from validators.facts import FaceLook, Facts, Overlay, Range
from validators.media.contact_sheet import Envelope
from validators.policy import STANDARD
from validators.verdict import Code, Finding, Outcome, Verdict

FULL_CHANGE = 64.0  # grey levels; a cut between two scenes changes about so much
FULL_TURN_DEG = 60.0
FULL_MOUTH = 0.25  # of the face's height: wide open
DOUBTFUL = (Outcome.FAIL, Outcome.UNCERTAIN, Outcome.WARN)

Points = list[tuple[float, float]]


def axis_of(facts: Facts, verdict: Verdict, envelope: Envelope | None) -> Axis | None:
    """Everything that has a place in time; None for a still image, or where nothing decoded."""
    if facts.decode is None or facts.decode.duration_s <= 0:
        return None
    length_s = facts.decode.duration_s
    found = {finding.code: finding for finding in verdict.checks}
    lanes = [*_findings(verdict, length_s)]
    lanes += _heard(facts, found, envelope, length_s)
    lanes += _moved(facts, length_s)
    lanes += _faces(facts, found, length_s)
    lanes += _overlays(facts, length_s)
    failing = [finding for finding in verdict.checks if finding.outcome is Outcome.FAIL]
    ranges = [each for finding in failing for each in finding.ranges]
    return Axis(
        length_s=length_s,
        ticks=ticks(length_s),
        lanes=tuple(lanes),
        bands=bars(joined(ranges), length_s),
        edges=marks(sorted({at for each in ranges for at in each}), length_s),
    )


def _findings(verdict: Verdict, length_s: float) -> Iterator[Lane]:
    for outcome in DOUBTFUL:
        for finding in verdict.checks:
            if finding.outcome is outcome and finding.ranges:
                yield Lane(
                    key="found",
                    title=finding.code,
                    note=outcome,
                    said=f"{finding.code}, {outcome}: {spans(finding.ranges)}.",
                    tone=outcome,
                    code=finding.code,
                    bars=bars(finding.ranges, length_s),
                )


def _heard(
    facts: Facts, found: dict[Code, Finding], envelope: Envelope | None, length_s: float
) -> Iterator[Lane]:
    if envelope is not None:
        yield _sound(envelope, length_s)
    if facts.speech is not None:
        yield _ranges("speech", "Speech", facts.heard(facts.speech.speech), length_s)
        if facts.speech.music_probability is not None:
            yield _music(facts.speech.music_probability, found, length_s)
    if facts.speakers is not None and facts.speakers.score is not None:
        tone = _tone(found, Code.MULTIPLE_SPEAKERS)
        voices = facts.heard(facts.speakers.second_voice) if tone != "data" else ()
        yield _ranges("second-voice", "Second voice", voices, length_s, tone=tone)


def _sound(envelope: Envelope, length_s: float) -> Lane:
    peak = max(abs(each) for each in (*envelope.low, *envelope.high))
    note = f"peak {amount(round(20 * math.log10(peak), 1), 'dBFS')}" if peak > 0 else "silence"
    return Lane(
        key="sound",
        title="Sound",
        note=note,
        said=f"Waveform, {note}.",
        tall=True,
        middle=True,
        area=waveform(envelope.low, envelope.high, (envelope.start_s, envelope.end_s), length_s),
    )


def _music(probability: float, found: dict[Code, Finding], length_s: float) -> Lane:
    """One level: it is measured as a mean over the recording, so it has no place in time."""
    finding = found.get(Code.BACKGROUND_AUDIO)
    limit = finding.limit if finding is not None else None
    note = f"mean {probability:.2f}"
    return Lane(
        key="music",
        title="Background",
        note=note,
        said=f"Probability of music or babble, mean over the recording: {probability:.2f}.",
        tone=_tone(found, Code.BACKGROUND_AUDIO),
        area=filled([(0, probability), (length_s, probability)], length_s, (0, 1)),
        limit=None if limit is None else height_of(limit, (0, 1)),
    )


def _moved(facts: Facts, length_s: float) -> Iterator[Lane]:
    """Change on a scale of roots: what moves in a talking head is small beside a cut."""
    motion = facts.motion
    if motion is None or not motion.times_s:
        return
    points = [(t, math.sqrt(each)) for t, each in zip(motion.times_s, motion.change, strict=True)]
    cuts = [cut.time_s for cut in motion.cuts]
    note = count(len(cuts), "cut") if cuts else "no cut"
    at = f" at {spans([(cut, cut) for cut in cuts])}" if cuts else ""
    yield Lane(
        key="change",
        title="Change",
        note=note,
        said=f"Change from frame to frame, {note}{at}.",
        area=filled(points, length_s, (0, math.sqrt(FULL_CHANGE))),
        marks=marks(cuts, length_s),
    )


def _faces(facts: Facts, found: dict[Code, Finding], length_s: float) -> Iterator[Lane]:
    if facts.faces is None or not facts.faces.frames:
        return
    frames = seen(facts, STANDARD)
    present = _present(frames, found, length_s)
    yield _ranges("face", "Face", present, length_s, tone=_tone(found, Code.NO_FACE))
    second = found[Code.MULTIPLE_FACES].ranges if Code.MULTIPLE_FACES in found else ()
    tone = _tone(found, Code.MULTIPLE_FACES)
    yield _ranges("second-face", "Second face", second, length_s, tone=tone)
    yield from _looks(frames, found, length_s)


def _present(
    frames: Sequence[Seen], found: dict[Code, Finding], length_s: float
) -> tuple[Range, ...]:
    """The time that `face_missing` leaves; where it was skipped, frames with any face at all."""
    missing = found.get(Code.FACE_MISSING)
    if missing is not None and missing.outcome is not Outcome.SKIPPED:
        return without(missing.ranges, length_s)
    return joined(frame.shown for frame in frames if frame.main is not None)


def _looks(frames: Sequence[Seen], found: dict[Code, Finding], length_s: float) -> Iterator[Lane]:
    looks = [(frame.shown[0], frame.look) for frame in frames if frame.look is not None]
    if looks:
        yield _turned(looks, found, length_s)
        opened = _held([(at, look.mouth_open) for at, look in looks], length_s)
        yield Lane(
            key="mouth",
            title="Mouth open",
            note="",
            said="How far the mouth is open.",
            tone=_tone(found, Code.STILL_MOUTH),
            area=filled(opened, length_s, (0, FULL_MOUTH)),
        )
    strange = [(frame.shown[0], frame.stranger) for frame in frames if frame.stranger is not None]
    if strange:
        yield _other_person(_held(strange, length_s), found, length_s)


def _held(points: Points, length_s: float) -> Points:
    """The last value stands until the end."""
    return [*points, (length_s, points[-1][1])]


def _turned(
    looks: Sequence[tuple[float, FaceLook]], found: dict[Code, Finding], length_s: float
) -> Lane:
    yaw = _held([(at, look.yaw_deg) for at, look in looks], length_s)
    most = max((degrees for _, degrees in yaw), key=abs)
    note = f"most {abs(most):.0f}°"
    return Lane(
        key="turn",
        title="Head turned",
        note=note,
        said=f"Turn of the head to the left and right, at most {abs(most):.0f} degrees.",
        tone=_tone(found, Code.FACE_TURNED),
        middle=True,
        line=curve(yaw, length_s, (-FULL_TURN_DEG, FULL_TURN_DEG)),
    )


def _other_person(strange: Points, found: dict[Code, Finding], length_s: float) -> Lane:
    finding = found.get(Code.DIFFERENT_PERSON)
    limit = finding.limit if finding is not None else None
    most = max(distance for _, distance in strange)
    scale = (0.0, max(1.0, most))
    return Lane(
        key="stranger",
        title="Other person",
        note=f"most {most:.2f}",
        said=f"Distance of the face from the clip's own person, at most {most:.2f}.",
        tone=_tone(found, Code.DIFFERENT_PERSON),
        area=filled(strange, length_s, scale),
        limit=None if limit is None else height_of(limit, scale),
    )


def _overlays(facts: Facts, length_s: float) -> Iterator[Lane]:
    if facts.overlays is None:
        return
    every = facts.overlays.overlays
    note = ", ".join(sorted({overlay.kind for overlay in every})) or "none"
    shown = joined(each for overlay in every for each in shown_of(overlay, length_s))
    yield Lane(
        key="overlay",
        title="Overlay",
        note=note,
        said=f"Overlays: {note}{', at ' + spans(shown) if shown else ''}.",
        bars=bars(shown, length_s),
    )


def shown_of(overlay: Overlay, length_s: float) -> tuple[Range, ...]:
    return overlay.shown or ((0.0, length_s),)


def _ranges(
    key: str, title: str, ranges: Sequence[Range], length_s: float, *, tone: str = "data"
) -> Lane:
    total_s = sum(end - start for start, end in ranges)
    note = moment(total_s) if ranges else "none"
    return Lane(
        key=key,
        title=title,
        note=note,
        said=f"{title}: {spans(ranges) if ranges else 'none'}.",
        tone=tone,
        bars=bars(ranges, length_s),
    )


def _tone(found: dict[Code, Finding], code: Code) -> str:
    """The colour of a lane: its check's outcome where that is doubtful."""
    finding = found.get(code)
    return finding.outcome if finding is not None and finding.outcome in DOUBTFUL else "data"
