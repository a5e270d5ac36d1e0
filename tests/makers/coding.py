"""What is inside the tracks: codecs, turns, pixels and frames of every kind."""

from pathlib import Path

from tests import media
from tests.makers import X264, Bench, maker

OPUS = ("-c:a", "libopus")
PCM = ("-c:a", "pcm_s16le")


@maker
def hevc(bench: Bench) -> Path:
    quick = ("-preset", "ultrafast", "-x265-params", "log-level=error")
    return bench.convert("-c:v", "libx265", *quick, "-tag:v", "hvc1", "-c:a", "copy")


@maker
def av1(bench: Bench) -> Path:
    quick = ("-preset", "12", "-svtav1-params", "lp=2")
    return bench.convert("-c:v", "libsvtav1", *quick, "-c:a", "copy")


@maker
def vp9(bench: Bench) -> Path:
    quick = ("-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M")
    return bench.convert("-c:v", "libvpx-vp9", *quick, *OPUS, to="webm")


@maker
def prores(bench: Bench) -> Path:
    return bench.convert("-c:v", "prores", *PCM, to="mov")


@maker
def mpeg2(bench: Bench) -> Path:
    return bench.convert("-c:v", "mpeg2video", "-b:v", "3M", "-c:a", "ac3", to="ts")


@maker
def mjpeg(bench: Bench) -> Path:
    return bench.convert("-c:v", "mjpeg", "-q:v", "4", *PCM, to="avi")


@maker
def mpeg4_part_2(bench: Bench) -> Path:
    return bench.convert("-c:v", "mpeg4", "-q:v", "3", "-c:a", "libmp3lame", to="avi")


@maker
def ten_bits(bench: Bench) -> Path:
    return bench.convert(*X264[:-1], "yuv420p10le", "-c:a", "copy")


def _shown(bench: Bench, stored: str, matrix: tuple[int, int, int, int]) -> Path:
    """Stored turned, and flagged so that a viewer sees the clip as it was."""
    return media.turned(bench.new(), bench.filtered(stored), matrix)


@maker
def turned_by_90(bench: Bench) -> Path:
    return _shown(bench, "transpose=cclock", (0, 1, -1, 0))


@maker
def turned_by_270(bench: Bench) -> Path:
    return _shown(bench, "transpose=clock", (0, -1, 1, 0))


@maker
def turned_by_180(bench: Bench) -> Path:
    return _shown(bench, "hflip,vflip", (-1, 0, 0, -1))


@maker
def turned_and_mirrored(bench: Bench) -> Path:
    return _shown(bench, "transpose=cclock_flip", (0, 1, 1, 0))


@maker
def mirrored(bench: Bench) -> Path:
    return _shown(bench, "hflip", (-1, 0, 0, 1))


@maker
def turned_and_not_flagged(bench: Bench) -> Path:
    return bench.filtered("transpose=clock")


@maker
def variable_frame_rate(bench: Bench) -> Path:
    uneven = "select='if(lt(t,2),not(mod(n,2)),1)'"
    return bench.filtered(uneven, "-fps_mode", "vfr")


@maker
def eight_thousand_pixels_wide(bench: Bench) -> Path:
    path = bench.new()
    picture = ("-f", "lavfi", "-i", "color=gray:s=7680x1200:r=1:d=5")
    media.ffmpeg(*picture, "-i", bench.voice, *X264, path)
    return path


@maker
def parameter_set_of_20000_pixels(bench: Bench) -> Path:
    return _promising(bench, 20_000)


@maker
def parameter_set_of_3000_pixels(bench: Bench) -> Path:
    return _promising(bench, 3_008)


def _promising(bench: Bench, side: int) -> Path:
    """The pictures are small; what the decoder is told first says that they are huge."""
    raw = bench.convert(*X264, "-bf", "0", "-an", "-f", "h264", to="h264").read_bytes()
    start = raw.index(b"\x00\x00\x01\x67")
    end = raw.index(b"\x00\x00\x01", start + 4)
    huge = raw[:start] + b"\x00\x00\x01" + _parameter_set(side, side) + raw[end:]
    stream, path = bench.write(huge, "h264"), bench.new("ts")
    both = ("-f", "h264", "-framerate", "25", "-i", stream, "-i", bench.voice)
    quiet = ("-loglevel", "quiet")  # ffmpeg, too, has much to say of it
    media.ffmpeg(*quiet, *both, "-c:v", "copy", "-c:a", "aac", path)
    return path


def _parameter_set(width: int, height: int) -> bytes:
    """An SPS of H.264, baseline profile, as clause 7.3.2.1.1 lays it out."""
    blocks = (width // 16 - 1, height // 16 - 1)
    numbers = [_exp_golomb(n) for n in (0, 0, 2, 1)]  # id, frame numbers, order of output, frames
    size = "".join(_exp_golomb(n) for n in blocks)
    bits = "".join(numbers) + "0" + size + "1" + "1" + "0" + "0" + "1"
    bits += "0" * (-len(bits) % 8)
    return b"\x67\x42\xc0\x3e" + int(bits, 2).to_bytes(len(bits) // 8)


def _exp_golomb(number: int) -> str:
    bits = f"{number + 1:b}"
    return "0" * (len(bits) - 1) + bits


@maker
def ninety_six_pixels(bench: Bench) -> Path:
    return bench.filtered("scale=96:96")


@maker
def size_that_changes(bench: Bench) -> Path:
    parts = (("scale=512:512", "0", "2.4"), ("scale=640:640", "2.4", "2.6"))
    data = b""
    for picture, start, length in parts:
        cut = ("-ss", start, "-t", length, "-output_ts_offset", start)
        data += bench.filtered(picture, *cut, to="ts").read_bytes()
    return bench.write(data, "ts")


@maker
def pixels_that_are_not_square(bench: Bench) -> Path:
    return bench.filtered("scale=384:512,setsar=4/3")


@maker
def interlaced(bench: Bench) -> Path:
    woven = "tinterlace=interleave_top,fieldorder=tff"
    return bench.convert(
        *("-vf", f"fps=32,{woven}", "-flags", "+ilme+ildct", "-c:v", "mpeg2video", "-b:v", "4M"),
        *("-c:a", "ac3"),
        to="ts",
    )


@maker
def alpha_of_vp9(bench: Bench) -> Path:
    quick = ("-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M", "-auto-alt-ref", "0")
    see_through = ("-vf", "scale=320:320,format=yuva420p", "-c:v", "libvpx-vp9", *quick)
    return bench.convert(*see_through, *OPUS, to="webm")


@maker
def alpha_of_prores(bench: Bench) -> Path:
    see_through = (
        "-vf",
        "fps=8,scale=272:272,format=yuva444p10le",
        "-c:v",
        "prores_ks",
        "-profile:v",
        "4",
    )
    return bench.convert(*see_through, *PCM, to="mov")


@maker
def ten_frames_a_second(bench: Bench) -> Path:
    return bench.filtered("fps=10")
