"""The whole inspection, real models and real ffmpeg, on media made here: each fault by its code."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests import media
from validators.analysis import weights
from validators.analysis.client import Analyzer
from validators.facts import Kind
from validators.inspect import Tools, inspect
from validators.media.sandbox import Limits, Sandbox
from validators.policy import STANDARD
from validators.verdict import Code, Finding, Outcome, Verdict

SAMPLES = Path(__file__).parents[2] / "samples"
CLIP, PORTRAIT, VOICE = SAMPLES / "one_person.mp4", SAMPLES / "portrait.jpg", SAMPLES / "voice.flac"
FONT = "font=Sans:fontcolor=white"
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tools() -> AsyncIterator[Tools]:
    missing = weights.missing()
    if missing:
        pytest.skip(f"{weights.WeightsMissingError(missing)}: verdicts were NOT checked")
    async with Analyzer() as analyzer:
        yield Tools(sandbox=Sandbox(limits=Limits(wall_s=60)), analyzer=analyzer)


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def judged(path: Path, kind: Kind, tools: Tools) -> Verdict:
    return (await inspect(path, kind, STANDARD, tools)).verdict


def the(code: Code, verdict: Verdict) -> Finding:
    (found,) = [check for check in verdict.checks if check.code is code]
    return found


def filtered(path: Path, picture: str, *more: str) -> Path:
    """The sample clip through a filter of pictures; its sound is copied."""
    media.ffmpeg("-i", CLIP, "-vf", picture, *X264, "-c:a", "copy", *more, path)
    return path


def with_second(path: Path, *, height: int, when: str) -> Path:
    """The sample clip with the portrait, mirrored and recoloured, in a corner."""
    inset = f"[1]scale=-2:{height},hflip,colorchannelmixer=rr=0.4:gg=1.1:bb=1.4[p]"
    laid = f"{inset};[0][p]overlay=W-w-8:8:enable='{when}'"
    portrait = ("-loop", "1", "-t", "7", "-i", PORTRAIT)
    media.ffmpeg("-i", CLIP, *portrait, "-filter_complex", laid, *X264, "-c:a", "copy", path)
    return path


PICTURES = {
    "cut away for three frames": (
        "drawbox=t=fill:c=teal:enable='between(n,80,82)',noise=alls=60:enable='between(n,80,82)'",
        Code.SCENE_CUT,
        Outcome.FAIL,
    ),
    "frozen": ("loop=60:1:60,setpts=N/25/TB,trim=end=7", Code.FROZEN_VIDEO, Outcome.FAIL),
    "black": ("drawbox=t=fill:c=black:enable='lt(n,20)'", Code.BLACK_FRAMES, Outcome.FAIL),
    "caption": (
        f"drawtext={FONT}:fontsize=36:text='a burnt-in caption':x=20:y=h-70:box=1:boxcolor=black",
        Code.OVERLAY,
        Outcome.FAIL,
    ),
    "sideways": ("transpose=clock", Code.FACE_TURNED, Outcome.FAIL),
    "blurred": ("gblur=sigma=9", Code.BLURRY, Outcome.WARN),
    "dark": ("lutyuv=y='16+(val-16)*0.12'", Code.TOO_DARK, Outcome.WARN),
    "burnt out": ("lutyuv=y='min(235,val*1.8)'", Code.TOO_BRIGHT, Outcome.WARN),
    "cut off at the edge": ("crop=iw*0.54:ih:iw*0.46:0", Code.FACE_CUT_OFF, Outcome.FAIL),
    "without the face": ("drawbox=t=fill:c=gray:enable='gt(t,5)'", Code.FACE_MISSING, Outcome.FAIL),
    "far away": ("scale=120:-2,pad=512:512:200:200:gray", Code.FACE_TOO_SMALL, Outcome.FAIL),
    "ten frames a second": ("fps=10", Code.LOW_FRAME_RATE, Outcome.WARN),
    "small": ("scale=240:240", Code.LOW_RESOLUTION, Outcome.FAIL),
}


@pytest.mark.parametrize("name", PICTURES)
async def test_a_fault_of_the_picture_has_its_code(tmp_path: Path, name: str, tools: Tools) -> None:
    picture, code, outcome = PICTURES[name]
    verdict = await judged(filtered(tmp_path / "a.mp4", picture), Kind.VIDEO, tools)
    assert the(code, verdict).outcome is outcome, verdict.failed


@pytest.mark.parametrize(
    ("path", "kind"), [(CLIP, Kind.VIDEO), (PORTRAIT, Kind.IMAGE), (VOICE, Kind.AUDIO)]
)
async def test_the_samples_are_accepted(path: Path, kind: Kind, tools: Tools) -> None:
    verdict = await judged(path, kind, tools)
    assert verdict.accepted, verdict.failed


@pytest.mark.parametrize("frame", [37, 61])
async def test_a_second_face_of_three_frames_is_seen(
    tmp_path: Path, frame: int, tools: Tools
) -> None:
    clip = with_second(tmp_path / "a.mp4", height=260, when=f"between(n,{frame},{frame + 2})")
    found = the(Code.MULTIPLE_FACES, await judged(clip, Kind.VIDEO, tools))
    assert found.outcome is Outcome.FAIL
    assert found.ranges[0][0] == pytest.approx(frame / 25, abs=0.05)


async def test_a_small_second_face_is_seen_when_it_stays(tmp_path: Path, tools: Tools) -> None:
    """Its face is a fifth of what is laid over: 6 % of the frame."""
    clip = with_second(tmp_path / "a.mp4", height=150, when="between(t,1,6)")
    found = the(Code.MULTIPLE_FACES, await judged(clip, Kind.VIDEO, tools))
    assert found.outcome is Outcome.FAIL
    assert found.value is not None
    assert found.value < 0.08


@pytest.mark.parametrize(
    "turn", ["transpose=clock", "transpose=cclock", "hflip,vflip"], ids=["90", "270", "180"]
)
async def test_a_rotation_flag_is_obeyed(tmp_path: Path, turn: str, tools: Tools) -> None:
    """Stored turned and flagged to be turned back: a viewer sees the sample as it was."""
    degrees = {"transpose=clock": (0, -1, 1, 0), "transpose=cclock": (0, 1, -1, 0)}
    stored = filtered(tmp_path / "stored.mp4", turn)
    shown = media.turned(tmp_path / "a.mp4", stored, degrees.get(turn, (-1, 0, 0, -1)))
    verdict = await judged(shown, Kind.VIDEO, tools)
    assert verdict.accepted, verdict.failed


async def test_a_variable_frame_rate_is_judged_by_its_times(tmp_path: Path, tools: Tools) -> None:
    """Half of the frames go: every second one for three seconds, then whole seconds keep five."""
    uneven = "select='if(lt(t,3),not(mod(n,2)),not(mod(n,5)))'"
    clip = filtered(tmp_path / "a.mp4", uneven, "-fps_mode", "vfr")
    verdict = await judged(clip, Kind.VIDEO, tools)
    assert verdict.accepted, verdict.failed
    assert verdict.media.duration_s == pytest.approx(7, abs=0.2)


async def test_patched_durations_hide_nothing(tmp_path: Path, tools: Tools) -> None:
    long = tmp_path / "long.mp4"
    media.ffmpeg("-stream_loop", "2", "-i", CLIP, "-c", "copy", "-use_editlist", "0", long)
    lying = media.lying(tmp_path / "a.mp4", long, seconds=8)
    verdict = await judged(lying, Kind.VIDEO, tools)
    assert Code.DURATION_TOO_LONG in verdict.failed


async def test_a_truncated_clip_is_unreadable(tmp_path: Path, tools: Tools) -> None:
    whole = tmp_path / "whole.mp4"
    media.ffmpeg("-i", CLIP, "-c", "copy", "-movflags", "+faststart", whole)
    verdict = await judged(media.truncated(tmp_path / "a.mp4", whole, 0.55), Kind.VIDEO, tools)
    assert Code.UNREADABLE in verdict.failed


async def test_a_second_voice_of_a_second_is_heard(tmp_path: Path, tools: Tools) -> None:
    first = media.speech(tmp_path / "a.wav", seconds=6, voice="en-us+m3")
    other = media.speech(tmp_path / "b.wav", seconds=4, voice="en-us+f3")
    joined = (
        "[0]atrim=0:3,asetpts=N/SR/TB[a];[1]atrim=0.2:1.2,asetpts=N/SR/TB[b];"
        "[0]atrim=3:6,asetpts=N/SR/TB[c];[a][b][c]concat=n=3:v=0:a=1"
    )
    path = tmp_path / "c.wav"
    media.ffmpeg("-i", first, "-i", other, "-filter_complex", joined, "-ar", "16000", path)
    found = the(Code.MULTIPLE_SPEAKERS, await judged(path, Kind.AUDIO, tools))
    assert found.outcome is Outcome.FAIL
    assert found.ranges[0] == pytest.approx((3.0, 4.0), abs=0.4)


CHORD = "0.25*(sin(2*PI*220*t)+sin(2*PI*277*t)+sin(2*PI*330*t)+sin(2*PI*440*t))*(1-mod(t,0.5))"
SOUNDS = {
    "music 15 dB down": (f"aevalsrc='{CHORD}':s=16000:d=6", -15, Code.BACKGROUND_AUDIO),
    "noise as loud as the voice": ("anoisesrc=c=white:r=16000:d=6", 0, Code.NOISY_AUDIO),
}


@pytest.mark.parametrize("name", SOUNDS)
async def test_a_fault_of_the_sound_has_its_code(tmp_path: Path, name: str, tools: Tools) -> None:
    """Both are brought to one loudness before the second is turned down."""
    source, level_db, code = SOUNDS[name]
    even = "aresample=16000,loudnorm=I=-23:TP=-3:LRA=5,aresample=16000"
    mixed = f"[0]{even}[v];[1]{even},volume={level_db}dB[m];[v][m]amix=duration=first:normalize=0"
    path = tmp_path / "a.wav"
    media.ffmpeg("-i", VOICE, "-f", "lavfi", "-i", source, "-filter_complex", mixed, path)
    verdict = await judged(path, Kind.AUDIO, tools)
    assert the(code, verdict).outcome is Outcome.FAIL, verdict.failed
