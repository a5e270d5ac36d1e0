"""Who is in the picture, and how the picture shows them."""

from pathlib import Path

from tests import media
from tests.makers import PORTRAIT, TWO_PEOPLE, X264, Bench, maker

FONT = "font=Sans:fontcolor=white"
STRANGER = "hflip,colorchannelmixer=rr=0.4:gg=1.1:bb=1.4"


def _with_second(bench: Bench, *, height: int, when: str) -> Path:
    """The clip with the portrait, mirrored and recoloured, in a corner."""
    path = bench.new()
    inset = f"[1]scale=-2:{height},{STRANGER}[p]"
    laid = f"{inset};[0][p]overlay=W-w-8:8:enable='{when}'"
    portrait = ("-loop", "1", "-framerate", "16", "-t", "4.6", "-i", PORTRAIT)
    joined = ("-filter_complex", laid, *X264, "-c:a", "copy")
    media.ffmpeg("-i", bench.clip, *portrait, *joined, path)
    return path


@maker
def two_people_all_the_time(bench: Bench) -> Path:
    return _with_second(bench, height=300, when="1")


@maker
def two_people_in_a_photo(bench: Bench) -> Path:
    path = bench.new("jpg")
    beside = f"split[a][b];[b]{STRANGER}[c];[a][c]hstack"
    media.ffmpeg("-i", PORTRAIT, "-vf", beside, path)
    return path


@maker
def second_person_for_700_ms(bench: Bench) -> Path:
    return _with_second(bench, height=260, when="between(t,2,2.66)")


@maker
def poster_in_the_background(bench: Bench) -> Path:
    return _with_second(bench, height=150, when="1")


@maker
def two_people_who_speak_in_turn(bench: Bench) -> Path:
    return bench.convert("-c", "copy", source=TWO_PEOPLE)


@maker
def nobody(bench: Bench) -> Path:
    path = bench.new()
    picture = ("-f", "lavfi", "-i", "testsrc2=s=512x512:r=16:d=5")
    media.ffmpeg(*picture, "-i", bench.voice, *X264, path)
    return path


@maker
def close_up(bench: Bench) -> Path:
    return bench.filtered("crop=230:230:120:60,scale=512:512")


@maker
def tiny_face(bench: Bench) -> Path:
    return bench.filtered("scale=128:128,pad=720:720:300:200:gray")


@maker
def face_of_8_percent(bench: Bench) -> Path:
    return bench.filtered("scale=232:232,pad=720:720:300:200:gray")


@maker
def face_gone_for_a_third(bench: Bench) -> Path:
    return bench.filtered("drawbox=t=fill:c=gray:enable='gt(t,3.4)'")


@maker
def blurred(bench: Bench) -> Path:
    return bench.filtered("gblur=sigma=9")


@maker
def dark(bench: Bench) -> Path:
    return bench.filtered("lutyuv=y='16+(val-16)*0.12'")


@maker
def burnt_out(bench: Bench) -> Path:
    return bench.filtered("lutyuv=y='min(235,val*1.8)'")


@maker
def blurred_photo(bench: Bench) -> Path:
    path = bench.new("jpg")
    media.ffmpeg("-i", PORTRAIT, "-vf", "gblur=sigma=9", path)
    return path


@maker
def hard_cut(bench: Bench) -> Path:
    elsewhere = "drawbox=t=fill:c=teal:enable='gt(t,3)',noise=alls=60:enable='gt(t,3)'"
    return bench.filtered(elsewhere)


@maker
def cut_to_the_same_person(bench: Bench) -> Path:
    """Twice the size from one frame to the next."""
    path = bench.new()
    zoom = "[0]split[a][b];[b]crop=300:300:90:40,scale=512:512[c]"
    laid = f"{zoom};[a][c]overlay=enable='gt(t,2.5)'"
    media.ffmpeg("-i", bench.clip, "-filter_complex", laid, *X264, "-c:a", "copy", path)
    return path


@maker
def frozen_for_half_of_it(bench: Bench) -> Path:
    return bench.filtered("loop=40:1:30,setpts=N/16/TB,trim=end=4.6")


@maker
def frozen_for_1_3_s(bench: Bench) -> Path:
    return bench.filtered("loop=20:1:30,setpts=N/16/TB,trim=end=4.6")


@maker
def black_for_1_3_s(bench: Bench) -> Path:
    return bench.filtered("drawbox=t=fill:c=black:enable='between(t,0,1.3)'")


@maker
def captions(bench: Bench) -> Path:
    words = f"drawtext={FONT}:fontsize=36:text='a burnt-in caption':x=20:y=h-70"
    return bench.filtered(f"{words}:box=1:boxcolor=black")


@maker
def logo(bench: Bench) -> Path:
    square = "drawbox=x=20:y=20:w=90:h=90:c=red:t=fill"
    return bench.filtered(f"{square},drawtext={FONT}:fontsize=40:text='TV7':x=26:y=48")
