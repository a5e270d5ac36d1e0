"""Facts of media that pass every check, to be spoiled one field at a time with `replace`."""

from dataclasses import replace

from validators.facts import (
    FACTS_VERSION,
    ContainerFacts,
    DecodeFacts,
    Face,
    FaceFacts,
    FaceLook,
    Facts,
    FrameFacts,
    Kind,
    MotionFacts,
    OverlayFacts,
    PictureFacts,
    SpeakerFacts,
    SpeechFacts,
    StreamFacts,
    StreamType,
    TrackFacts,
)
from validators.policy import STANDARD
from validators.rules import judge
from validators.verdict import Code, Finding

VIDEO_STREAM = StreamFacts(
    index=0,
    type=StreamType.VIDEO,
    codec="h264",
    width=1280,
    height=720,
    packets=250,
    promised_packets=250,
)
AUDIO_STREAM = StreamFacts(
    index=1, type=StreamType.AUDIO, codec="aac", packets=469, promised_packets=469
)
SPEECH = SpeechFacts(
    duration_s=10,
    speech=((0.5, 9.5),),
    snr_db=36,
    music_probability=0.001,
    clipped_runs_per_s=0,
    loudness_dbfs=-20,
)
FACE = Face(left=0.4, top=0.2, width=0.2, height=0.5, confidence=0.95, confirmation=0.9)
LOOK = FaceLook(
    presence=1.0,
    yaw_deg=0.0,
    pitch_deg=0.0,
    roll_deg=0.0,
    mouth_open=0.02,
    eyes_open=0.26,
    sharpness=0.45,
    luma=0.6,
    burnt=0.0,
    black=0.0,
    outside=0.0,
)
FRAMES = tuple(
    FrameFacts(
        time_s=n / 5,
        faces=(FACE,),
        number=n * 5,
        look=replace(LOOK, mouth_open=0.02 + 0.02 * (n % 4)),
        stranger=0.2 if n % 8 == 0 else None,
    )
    for n in range(50)
)
MOTION = MotionFacts(
    times_s=tuple(n / 25 for n in range(250)),
    change=(0.0, *(1.0,) * 249),
    block_change=(0.0, *(6.0,) * 249),
    luma=(120.0,) * 250,
    dark=(0.01,) * 250,
)

VIDEO = Facts(
    version=FACTS_VERSION,
    kind=Kind.VIDEO,
    size_bytes=1000,
    sha256="ab",
    signature="mp4",
    container=ContainerFacts(
        format="mov", declared_duration_s=10, streams=(VIDEO_STREAM, AUDIO_STREAM)
    ),
    decode=DecodeFacts(
        complete=True,
        capped=False,
        video=TrackFacts(start_s=0, end_s=10, units=250),
        audio=TrackFacts(start_s=0, end_s=10, units=468),
    ),
    speech=SPEECH,
    speakers=SpeakerFacts(score=-4, second_voice_s=0),
    faces=FaceFacts(frames=FRAMES, interval_s=0.2),
    motion=MOTION,
    overlays=OverlayFacts(overlays=(), frames=50),
)
AUDIO = replace(
    VIDEO,
    kind=Kind.AUDIO,
    signature="m4a",
    container=ContainerFacts(format="mov", declared_duration_s=10, streams=(AUDIO_STREAM,)),
    decode=DecodeFacts(
        complete=True, capped=False, audio=TrackFacts(start_s=0, end_s=10, units=468)
    ),
    faces=None,
    motion=None,
    overlays=None,
)
IMAGE = Facts(
    version=FACTS_VERSION,
    kind=Kind.IMAGE,
    size_bytes=1000,
    sha256="ab",
    signature="png",
    picture=PictureFacts(width=800, height=1000),
    faces=FaceFacts(frames=FRAMES[:1], interval_s=0),
    motion=None,
    overlays=OverlayFacts(overlays=(), frames=1),
)


def lasting(facts: Facts, seconds: float) -> Facts:
    """*facts* with both tracks decoded to *seconds*."""
    decode = facts.decode
    assert decode is not None
    video = decode.video and TrackFacts(
        start_s=0, end_s=seconds, units=max(250, round(seconds * 25))
    )
    audio = decode.audio and TrackFacts(start_s=0, end_s=seconds, units=468)
    return replace(facts, decode=replace(decode, video=video, audio=audio))


def the(code: Code, facts: Facts) -> Finding:
    """The finding of one check under the standard policy."""
    (found,) = [check for check in judge(facts, STANDARD).checks if check.code is code]
    return found
