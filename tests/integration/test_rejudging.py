"""Stored facts, judged again under another policy, give the verdict of a fresh run.

Real tools and models. What is stored was measured for `standard`; what it is compared with is
measured, and judged, for `strict`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.settings import Settings
from service.wiring import open_tools
from tests import media
from tests.corpus import Labelled, labelled
from tests.facts import AUDIO, MOTION, VIDEO
from validators.encoding import decode_facts, encode_facts, verdict_document
from validators.facts import Kind, SpeakerFacts, TrackFacts
from validators.inspect import measure
from validators.policy import STANDARD, STRICT
from validators.rules import judge
from validators.verdict import Code

SAMPLES = Path(__file__).parents[2] / "samples"
PER_LABEL = 3

Files = Sequence[tuple[Path, Kind]]
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(numbers, numbers, st.lists(numbers, min_size=1, max_size=4))
def test_no_number_is_rounded_when_facts_are_stored(a: float, b: float, many: list[float]) -> None:
    speakers = SpeakerFacts(
        score=a, second_voice_s=b, second_voice=((a, b),), features={"x": many[0]}
    )
    facts = replace(
        VIDEO,
        speakers=speakers,
        motion=replace(MOTION, times_s=tuple(many), change=tuple(many)),
    )
    assert decode_facts(encode_facts(facts)) == facts


LOWEST_DOUBT = STANDARD.second_voice_score - STANDARD.second_voice_margin
LEAST_SURE = STANDARD.second_voice_score + STANDARD.second_voice_margin


@pytest.mark.parametrize("limit", [LOWEST_DOUBT, LEAST_SURE])
@pytest.mark.parametrize("side", [-1, 0, 1])
def test_a_number_beside_a_limit_is_judged_the_same_when_it_was_stored(
    limit: float, side: int
) -> None:
    score = math.nextafter(limit, limit + side)
    track = TrackFacts(start_s=0.1, end_s=0.1 + STANDARD.min_duration_s, units=468)
    decode = replace(AUDIO.decode, audio=track)  # type: ignore[type-var]  # it was decoded
    speakers = SpeakerFacts(score=score, second_voice_s=STANDARD.second_voice_s)
    facts = replace(AUDIO, decode=decode, speakers=speakers)
    stored = decode_facts(encode_facts(facts))
    for policy in (STANDARD, STRICT):
        assert judge(stored, policy) == judge(facts, policy)


def made(folder: Path) -> Files:
    """All kinds: accepted, rejected, and such that nothing can be read of them."""
    clip = media.clip(folder / "clip.mp4", size="640x512")
    (folder / "empty.mp4").touch()
    (folder / "text.jpg").write_text("Not a picture.")
    (folder / "list.flac").write_text("#EXTM3U\nclip.mp4\n")
    return [
        (SAMPLES / "one_person.mp4", Kind.VIDEO),
        (SAMPLES / "two_people.mp4", Kind.VIDEO),
        (SAMPLES / "portrait.jpg", Kind.IMAGE),
        (SAMPLES / "voice.flac", Kind.AUDIO),
        (SAMPLES / "one_person.mp4", Kind.AUDIO),
        (clip, Kind.VIDEO),
        (media.clip(folder / "mute.mp4", sound=False), Kind.VIDEO),
        (media.clip(folder / "short.mp4", seconds=1), Kind.VIDEO),
        (media.resized(folder / "sizes.ts", parts=[("320x240", 3), ("640x480", 3)]), Kind.VIDEO),
        (media.truncated(folder / "cut.mp4", clip, 0.6), Kind.VIDEO),
        (media.damaged(folder / "bad.mp4", SAMPLES / "one_person.mp4", every=900), Kind.VIDEO),
        (media.speech(folder / "spoken.wav"), Kind.AUDIO),
        (media.speech(folder / "spoken.mp3", voice="en-us+f3"), Kind.AUDIO),
        (media.tone(folder / "tone.flac"), Kind.AUDIO),
        (media.still(folder / "still.png", size=(700, 600)), Kind.IMAGE),
        (media.animated(folder / "moving.gif"), Kind.IMAGE),
        (folder / "empty.mp4", Kind.VIDEO),
        (folder / "text.jpg", Kind.IMAGE),
        (folder / "list.flac", Kind.AUDIO),
    ]


async def unlike(files: Files) -> tuple[dict[str, object], set[Code | None]]:
    """What differs by file, and every failed code that was seen; None stands for no failure."""
    differences: dict[str, object] = {}
    seen: set[Code | None] = set()
    async with open_tools(Settings(inspect_concurrency=1)) as tools:
        for path, kind in files:
            kept = decode_facts(encode_facts(await measure(path, kind, tools)))
            fresh = await measure(path, kind, tools, policy=STRICT)
            again, anew = judge(kept, STRICT), judge(fresh, STRICT)
            seen |= set(anew.failed) or {None}
            if again != anew:  # facts of frames that miss their references differ by the run
                differences[path.name] = verdict_document(again), verdict_document(anew)
    return differences, seen


@pytest.mark.timeout(300)
async def test_stored_facts_of_made_media_are_judged_like_fresh_ones(tmp_path: Path) -> None:
    differences, seen = await unlike(made(tmp_path))
    assert not differences
    wanted = {None, Code.UNREADABLE, Code.UNSUPPORTED_FORMAT, Code.DURATION_TOO_SHORT}
    assert wanted <= seen
    assert seen >= {Code.NO_FACE, Code.NO_SPEECH, Code.MULTIPLE_FACES, Code.NO_AUDIO_STREAM}


@pytest.mark.corpus
@pytest.mark.timeout(900)
async def test_stored_facts_of_real_media_are_judged_like_fresh_ones() -> None:
    files = [
        (file.path, kind)
        for kind in Kind
        for expect in ("accept", "warn", "reject")
        for file in spread(labelled(kind.value, expect=expect))
    ]
    assert len(files) >= 20
    differences, _seen = await unlike(files)
    assert not differences


def spread(found: Sequence[Labelled]) -> Sequence[Labelled]:
    """A few, as far from one another as the manifest has them."""
    return found[:: max(1, len(found) // PER_LABEL)][:PER_LABEL]
