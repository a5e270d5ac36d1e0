"""The size and pace of the picture."""

from collections.abc import Iterator

from validators.checks.grade import crossed, finding, skip, too_low
from validators.facts import Facts, Kind, StreamFacts
from validators.policy import Policy
from validators.verdict import Code, Finding, Outcome

NO_PICTURE = "Skipped, because there is no picture to measure."


def size(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `image_too_large` and `low_resolution`."""
    dimensions = display_size(facts)
    if dimensions is None:
        yield skip(Code.IMAGE_TOO_LARGE, NO_PICTURE)
        yield skip(Code.LOW_RESOLUTION, NO_PICTURE)
        return
    yield _too_large(facts, policy, dimensions)
    yield _low_resolution(facts, policy, dimensions)


def display_size(facts: Facts) -> tuple[int, int] | None:
    """Width and height as a viewer sees them; None where there is no picture."""
    if facts.picture is not None:
        return facts.picture.width, facts.picture.height
    stream = judged_video(facts)
    return None if stream is None or not stream.width else stream.display_size


def judged_video(facts: Facts) -> StreamFacts | None:
    """The video stream that is judged; None in a recording of sound."""
    if facts.kind is not Kind.VIDEO or facts.container is None:
        return None
    return next(iter(facts.container.video), None)


def _too_large(facts: Facts, policy: Policy, dimensions: tuple[int, int]) -> Finding:
    image = facts.kind is Kind.IMAGE
    limit = policy.max_image_pixels if image else policy.max_frame_pixels
    stream = judged_video(facts)
    width, height = dimensions if stream is None else (stream.width or 0, stream.height or 0)
    pixels = width * height
    if stream is not None and pixels * stream.packets > policy.max_video_pixels:
        return _too_much(stream.packets, width, height, policy)
    return finding(
        Code.IMAGE_TOO_LARGE,
        Outcome.FAIL if pixels > limit else Outcome.PASS,
        f"{width} x {height} pixels.",
        value=pixels,
        limit=limit,
        unit="px",
        hint=f"Send at most {limit / 1e6:g} megapixels.",
    )


def _too_much(frames: int, width: int, height: int, policy: Policy) -> Finding:
    """Each frame is small enough, but all of them would not decode before the deadline."""
    limit = policy.max_video_pixels
    return finding(
        Code.IMAGE_TOO_LARGE,
        Outcome.FAIL,
        f"{frames} frames of {width} x {height} pixels are more than is decoded.",
        value=frames * width * height,
        limit=limit,
        unit="px",
        hint="Send a smaller picture, fewer frames per second, or a shorter recording.",
    )


def _low_resolution(facts: Facts, policy: Policy, dimensions: tuple[int, int]) -> Finding:
    """By the pixels that there are: stretching them for display adds none."""
    warn, fail = policy.low_resolution_warn_px, policy.low_resolution_fail_px
    stream = judged_video(facts)
    coded = dimensions if stream is None else stream.upright_size
    short = min(*dimensions, *coded)
    outcome = too_low(short, warn=warn, fail=fail)
    return finding(
        Code.LOW_RESOLUTION,
        outcome,
        f"The short side has {short} pixels.",
        value=short,
        limit=crossed(outcome, warn=warn, fail=fail),
        unit="px",
        hint=f"Send a picture of {warn} pixels or more on its short side.",
    )


def pace(facts: Facts, policy: Policy) -> Iterator[Finding]:
    """Owns `low_frame_rate`."""
    fps = decoded_fps(facts)
    if fps is None:
        yield skip(Code.LOW_FRAME_RATE, NO_PICTURE)
        return
    limit = policy.low_frame_rate_warn_fps
    yield finding(
        Code.LOW_FRAME_RATE,
        too_low(fps, warn=limit),
        f"{fps:.1f} frames per second.",
        value=fps,
        limit=limit,
        unit="fps",
        hint="Record at 25 frames per second or more.",
    )


def decoded_fps(facts: Facts) -> float | None:
    """Frames that decoded over the time that they show; None where no video decoded."""
    track = facts.decode.video if facts.decode is not None else None
    if track is None or track.duration_s <= 0:
        return None
    return track.units / track.duration_s


def animation(facts: Facts, _: Policy) -> Iterator[Finding]:
    """Owns `animated_image`."""
    if facts.picture is None:
        yield skip(Code.ANIMATED_IMAGE, NO_PICTURE)
        return
    frames = facts.picture.frames
    yield finding(
        Code.ANIMATED_IMAGE,
        Outcome.FAIL if frames > 1 else Outcome.PASS,
        "The picture does not move." if frames == 1 else "The picture has more than one frame.",
        value=frames,
        limit=1,
        unit="frames",
        hint="Send one still picture.",
    )
