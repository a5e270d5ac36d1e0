"""Rules judge facts under a policy. They are pure: no file, clock or model."""

from collections.abc import Iterator
from typing import Protocol

from validators.checks.duration import duration
from validators.checks.faces import faces
from validators.checks.grade import skip_after, strictly
from validators.checks.identity import identity
from validators.checks.motion import motion
from validators.checks.mouth import mouth
from validators.checks.overlay import overlay
from validators.checks.picture import animation, decoded_fps, display_size, judged_video, pace, size
from validators.checks.pose import pose
from validators.checks.quality import quality
from validators.checks.speakers import speakers
from validators.checks.speech import speech
from validators.checks.streams import present, readable
from validators.errors import UnmeasuredError
from validators.facts import Facts, Kind
from validators.policy import Policy
from validators.verdict import Code, Decision, Finding, Media, Outcome, Verdict


class Rule(Protocol):
    """One group of checks: facts and a policy give one finding for each code that it owns."""

    def __call__(self, facts: Facts, policy: Policy, /) -> Iterator[Finding]: ...


RULES: tuple[Rule, ...] = (
    readable,
    present,
    duration,
    size,
    pace,
    animation,
    motion,
    speech,
    speakers,
    faces,
    pose,
    quality,
    mouth,
    identity,
    overlay,
)
BEFORE_DECODING: tuple[Rule, ...] = (readable, present, size)

VIDEO, AUDIO, IMAGE = Kind.VIDEO, Kind.AUDIO, Kind.IMAGE
ALL = frozenset(Kind)
KINDS: dict[Code, frozenset[Kind]] = {
    Code.UNREADABLE: ALL,
    Code.UNSUPPORTED_FORMAT: ALL,
    Code.DURATION_TOO_SHORT: frozenset({VIDEO, AUDIO}),
    Code.DURATION_TOO_LONG: frozenset({VIDEO, AUDIO}),
    Code.HEADER_MISMATCH: frozenset({VIDEO, AUDIO}),
    Code.NO_VIDEO_STREAM: frozenset({VIDEO}),
    Code.NO_AUDIO_STREAM: frozenset({VIDEO}),
    Code.EXTRA_STREAMS: frozenset({VIDEO, AUDIO}),
    Code.ANIMATED_IMAGE: frozenset({IMAGE}),
    Code.IMAGE_TOO_LARGE: frozenset({IMAGE, VIDEO}),
    Code.LOW_RESOLUTION: frozenset({IMAGE, VIDEO}),
    Code.LOW_FRAME_RATE: frozenset({VIDEO}),
    Code.NO_SPEECH: frozenset({VIDEO, AUDIO}),
    Code.TOO_LITTLE_SPEECH: frozenset({VIDEO, AUDIO}),
    Code.MULTIPLE_SPEAKERS: frozenset({VIDEO, AUDIO}),
    Code.BACKGROUND_AUDIO: frozenset({VIDEO, AUDIO}),
    Code.NOISY_AUDIO: frozenset({VIDEO, AUDIO}),
    Code.CLIPPED_AUDIO: frozenset({VIDEO, AUDIO}),
    Code.QUIET_AUDIO: frozenset({VIDEO, AUDIO}),
    Code.NO_FACE: frozenset({VIDEO, IMAGE}),
    Code.FACE_MISSING: frozenset({VIDEO}),
    Code.MULTIPLE_FACES: frozenset({VIDEO, IMAGE}),
    Code.DIFFERENT_PERSON: frozenset({VIDEO}),
    Code.FACE_TOO_SMALL: frozenset({VIDEO, IMAGE}),
    Code.FACE_CUT_OFF: frozenset({VIDEO, IMAGE}),
    Code.FACE_TURNED: frozenset({VIDEO, IMAGE}),
    Code.BLURRY: frozenset({VIDEO, IMAGE}),
    Code.TOO_DARK: frozenset({VIDEO, IMAGE}),
    Code.TOO_BRIGHT: frozenset({VIDEO, IMAGE}),
    Code.SCENE_CUT: frozenset({VIDEO}),
    Code.OVERLAY: frozenset({VIDEO, IMAGE}),
    Code.FROZEN_VIDEO: frozenset({VIDEO}),
    Code.BLACK_FRAMES: frozenset({VIDEO}),
    Code.STILL_MOUTH: frozenset({VIDEO}),
}

OBSTACLES = (
    Code.UNSUPPORTED_FORMAT,
    Code.UNREADABLE,
    Code.NO_VIDEO_STREAM,
    Code.NO_AUDIO_STREAM,
    Code.IMAGE_TOO_LARGE,
    Code.DURATION_TOO_SHORT,
    Code.DURATION_TOO_LONG,
)  # a failure of one makes the rest meaningless; the first in this order is named

AFTER_OBSTACLES = frozenset(
    {
        *OBSTACLES,
        Code.HEADER_MISMATCH,
        Code.EXTRA_STREAMS,
        Code.ANIMATED_IMAGE,
        Code.LOW_RESOLUTION,
        Code.LOW_FRAME_RATE,
    }
)  # known without a model, so told even then


def judge(facts: Facts, policy: Policy) -> Verdict:
    """Every check of the kind, in public order. Accepted when none fails.

    Raises UnmeasuredError where nothing explains why a model did not look or listen.
    """
    findings = {finding.code: finding for rule in RULES for finding in rule(facts, policy)}
    cause = _obstacle(facts, findings)
    if cause is None:
        _expect_measured(facts)
    codes = (code for code in Code if facts.kind in KINDS[code])
    checks = tuple(_listed(code, findings, cause, policy) for code in codes)
    failed = any(check.outcome is Outcome.FAIL for check in checks)
    return Verdict(
        verdict=Decision.REJECTED if failed else Decision.ACCEPTED,
        policy=policy.label,
        engines=facts.engines,
        media=media(facts),
        checks=checks,
    )


def _expect_measured(facts: Facts) -> None:
    """A skipped check fails nothing, so what was never measured would be accepted."""
    spoken = facts.speech is not None and bool(facts.speech.speech)
    needed = {
        "faces": (Code.NO_FACE, facts.faces is not None and bool(facts.faces.frames)),
        "movement": (Code.SCENE_CUT, facts.motion is not None),
        "overlays": (Code.OVERLAY, facts.overlays is not None),
        "speech": (Code.NO_SPEECH, facts.speech is not None),
        "voices": (Code.MULTIPLE_SPEAKERS, facts.speakers is not None or not spoken),
    }
    for what, (code, there) in needed.items():
        if facts.kind in KINDS[code] and not there:
            raise UnmeasuredError(f"nothing stopped the measurement of {what}, yet there is none")


def obstacle(facts: Facts, policy: Policy) -> Code | None:
    """What makes decoding pointless already, by container and signature alone; None: nothing."""
    found = (finding for rule in BEFORE_DECODING for finding in rule(facts, policy))
    return _obstacle(facts, {finding.code: finding for finding in found})


def outside_limits(facts: Facts, policy: Policy) -> bool:
    """Whether what was decoded is too short or too long, so that no model need look or listen."""
    limits = {Code.DURATION_TOO_SHORT, Code.DURATION_TOO_LONG}
    found = duration(facts, policy)
    return any(each.code in limits and each.outcome is Outcome.FAIL for each in found)


def _obstacle(facts: Facts, findings: dict[Code, Finding]) -> Code | None:
    for code in OBSTACLES:
        finding = findings.get(code)
        if finding is None or facts.kind not in KINDS[code]:
            continue
        if finding.outcome is Outcome.FAIL:
            return code
    return None


def _listed(
    code: Code, findings: dict[Code, Finding], cause: Code | None, policy: Policy
) -> Finding:
    if cause is not None and code not in AFTER_OBSTACLES:
        return skip_after(code, cause)
    finding = findings[code]
    if finding.outcome is Outcome.SKIPPED and cause is not None:
        return skip_after(code, cause)
    return strictly(finding, policy)


def media(facts: Facts) -> Media:
    """The medium in one glance, as measured."""
    stream = judged_video(facts)
    width, height = display_size(facts) or (None, None)
    audio = facts.container.audio[:1] if facts.container is not None else ()
    decode, fps = facts.decode, decoded_fps(facts)
    return Media(
        kind=facts.kind,
        duration_s=None if decode is None else round(decode.duration_s, 3),
        width=width,
        height=height,
        fps=None if fps is None else round(fps, 3),
        video_codec=None if stream is None else stream.codec,
        audio_codec=audio[0].codec if audio else None,
        rotation_deg=None if stream is None else stream.rotation_deg,
        sha256=facts.sha256,
        size_bytes=facts.size_bytes,
    )
