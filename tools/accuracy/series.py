"""Series of made media: one fault, from small to large, in the same few accepted files."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tools.accuracy import mixing
from tools.accuracy.labels import Expect, Label
from tools.accuracy.measuring import Measured
from tools.accuracy.mixing import Medium, Recipe
from tools.accuracy.statistics import Rate
from tools.accuracy.tallies import NOTICED, Judged, judge_one
from validators.facts import Facts, Kind, Range
from validators.policy import STANDARD, STRICT
from validators.rules import judge
from validators.verdict import Code

PER_POINT = 15
SEED = 3

VOICE_S = (0.5, 1.0, 1.5, 2.0, 3.0)
FACE_SHARES = (0.025, 0.035, 0.05, 0.07, 0.10, 0.15)
SHORT_FRAMES = 3
INTRUDER_FRAMES = (1, 3, 5, 12)
MUSIC_DB = (-25, -20, -15, -10, -5)
NOISE_DB = (20, 15, 10, 5, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The made media of one size of one fault."""

    series: str
    size: str
    codes: frozenset[Code]  # any of these names the fault
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """What became of them."""

    series: str
    size: str
    named: Rate  # under standard
    noticed: Rate  # named, or warned of, or uncertain
    rejected: Rate  # for whatever reason
    rejected_by_strict: Rate
    unjudged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """Accepted media that faults are put into or taken from."""

    voices: tuple[Medium, ...]
    clips: tuple[Medium, ...]
    portraits: tuple[Medium, ...]
    music: tuple[Medium, ...]

    @classmethod
    def among(cls, labels: Sequence[Label], measured: Sequence[Measured]) -> "Materials":
        media = [
            Medium(label=label, facts=facts)
            for label, facts in zip(labels, measured, strict=True)
            if isinstance(facts, Facts)
        ]
        good = [medium for medium in media if _is_good(medium)]
        return cls(
            voices=tuple(m for m in good if m.label.kind is Kind.AUDIO),
            clips=tuple(m for m in good if m.label.kind is Kind.VIDEO),
            portraits=tuple(m for m in good if m.label.kind is Kind.IMAGE),
            music=tuple(m for m in media if _is_music(m)),
        )


def _is_good(medium: Medium) -> bool:
    return medium.label.expect is Expect.ACCEPT and judge(medium.facts, STANDARD).accepted


def _is_music(medium: Medium) -> bool:
    only_music = {"background_music", "no_speech"} <= set(medium.label.reasons)
    return medium.label.kind is Kind.AUDIO and only_music and medium.facts.decode is not None


def points(materials: Materials) -> Iterator[Point]:
    """Every point of every series that the folder has the material for."""
    return (point for point in _all_points(materials) if point.recipes)


def _all_points(materials: Materials) -> Iterator[Point]:
    if materials.voices:
        yield from _of_voices(materials)
        yield from _of_noise(materials)
    if materials.voices and materials.music:
        yield from _of_music(materials)
    if materials.clips:
        yield from _of_clips(materials)


def _of_voices(materials: Materials) -> Iterator[Point]:
    longest_s = max(VOICE_S)
    pairs = _pairs(materials.voices, [m for m in materials.voices if _run(m, longest_s)])
    makers: dict[str, Callable[[Medium, Medium, Range, float], Recipe]] = {
        "a second voice in turn": mixing.in_turn,
        "a second voice over the first": mixing.overlapped,
    }
    for series, make in makers.items():
        for seconds in VOICE_S:
            recipes = tuple(make(a, b, _run(b, longest_s)[0], seconds) for a, b in pairs)
            yield _point(series, f"{seconds:g} s", {Code.MULTIPLE_SPEAKERS}, recipes)


def _run(medium: Medium, seconds: float) -> list[Range]:
    """Runs of speech at least so long."""
    speech = medium.facts.speech
    return [(a, b) for a, b in (speech.speech if speech else ()) if b - a >= seconds]


def _of_noise(materials: Materials) -> Iterator[Point]:
    chosen = _some(materials.voices)
    for level in NOISE_DB:
        recipes = tuple(mixing.with_noise(base, level, n) for n, base in enumerate(chosen))
        yield _point("white noise below the speech", f"{level} dB", {Code.NOISY_AUDIO}, recipes)


def _of_music(materials: Materials) -> Iterator[Point]:
    chosen = _some(materials.voices)
    beds = [materials.music[n % len(materials.music)] for n in range(len(chosen))]
    for level in MUSIC_DB:
        made = zip(chosen, beds, strict=True)
        recipes = tuple(mixing.with_music(base, bed, level) for base, bed in made)
        codes = {Code.BACKGROUND_AUDIO, Code.NOISY_AUDIO}
        yield _point("music against the speech", f"{level} dB", codes, recipes)


def _of_clips(materials: Materials) -> Iterator[Point]:
    faces = _pairs(materials.clips, materials.portraits)
    for frames, series in (
        (None, "a second face, all of the time"),
        (SHORT_FRAMES, f"a second face, for {SHORT_FRAMES} frames"),
    ):
        for share in FACE_SHARES:
            recipes = tuple(mixing.second_face(a, b, share, frames) for a, b in faces)
            yield _point(series, f"{100 * share:g} %", {Code.MULTIPLE_FACES}, recipes)
    others = _pairs(materials.clips, materials.clips)
    codes = {Code.SCENE_CUT, Code.DIFFERENT_PERSON, Code.MULTIPLE_FACES, Code.FACE_MISSING}
    for count in INTRUDER_FRAMES:
        recipes = tuple(mixing.intruder(a, b, count) for a, b in others)
        yield _point("another clip cut in", f"{count} frames", codes, recipes)


def _point(series: str, size: str, codes: set[Code], recipes: tuple[Recipe, ...]) -> Point:
    return Point(series=series, size=size, codes=frozenset(codes), recipes=recipes)


def _some(media: Sequence[Medium]) -> list[Medium]:
    """A few, the same for every point: one of each origin, then a second of each, and so on."""
    rng = random.Random(SEED)  # noqa: S311 - repeatable
    ordered = sorted(media, key=lambda medium: medium.facts.sha256)
    rng.shuffle(ordered)
    turns, seen = list[tuple[int, Medium]](), Counter[str]()
    for medium in ordered:
        turns.append((seen[medium.label.origin], medium))
        seen[medium.label.origin] += 1
    return [medium for _turn, medium in sorted(turns, key=lambda pair: pair[0])[:PER_POINT]]


def _pairs(bases: Sequence[Medium], others: Sequence[Medium]) -> list[tuple[Medium, Medium]]:
    """Each of a few bases with a medium of another origin: most likely another person."""
    rng = random.Random(SEED)  # noqa: S311 - repeatable
    ordered = sorted(others, key=lambda medium: medium.facts.sha256)
    found = []
    for base in _some(bases):
        strangers = [each for each in ordered if each.label.origin != base.label.origin]
        if strangers:
            found.append((base, rng.choice(strangers)))
    return found


def row(point: Point, measured: Sequence[Measured]) -> PointRow:
    """*measured*: of the point's media, in their order."""
    labels = [recipe.base.label for recipe in point.recipes]
    judged = [judge_one(*pair, STANDARD) for pair in zip(labels, measured, strict=True)]
    strictly = [judge_one(*pair, STRICT) for pair in zip(labels, measured, strict=True)]
    sound = [each for each in judged if each.verdict is not None]
    return PointRow(
        series=point.series,
        size=point.size,
        named=Rate.count(bool(each.failed & point.codes) for each in sound),
        noticed=Rate.count(bool(_noticed(each) & point.codes) for each in sound),
        rejected=Rate.count(each.rejected for each in sound),
        rejected_by_strict=Rate.count(each.rejected for each in strictly if each.verdict),
        unjudged=len(judged) - len(sound),
    )


def _noticed(judged: Judged) -> frozenset[Code]:
    checks = judged.verdict.checks if judged.verdict else ()
    return frozenset(check.code for check in checks if check.outcome in NOTICED)
