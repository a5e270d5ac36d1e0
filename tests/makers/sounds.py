"""Recordings of voices: who speaks, over what, and in which file."""

import subprocess
from pathlib import Path

from tests import media
from tests.makers import SAMPLES, Bench, maker

SECOND = "en-us+m3"
CHORD = "0.25*(sin(2*PI*220*t)+sin(2*PI*277*t)+sin(2*PI*330*t)+sin(2*PI*440*t))*(1-mod(t,0.5))"
EVEN = "aresample=16000,loudnorm=I=-23:TP=-3:LRA=5,aresample=16000"


def _man(bench: Bench, text: str = media.TEXT) -> Path:
    path = bench.new("wav")
    subprocess.run(["espeak-ng", "-v", SECOND, "-w", path, text], check=True, timeout=60)
    return path


def _mixed(bench: Bench, graph: str, *inputs: str | Path) -> Path:
    path = bench.new("wav")
    named = [word for each in inputs for word in ("-i", each)]
    media.ffmpeg(*named, "-filter_complex", graph, "-ac", "1", path)
    return path


def _in_turn(bench: Bench, other: Path, *, from_s: float, length_s: float) -> Path:
    """The other voice stands in the place of the first for a while."""
    cut = "asetpts=N/SR/TB"
    parts = (
        f"[0]{EVEN},asplit[x][y];[x]atrim=0:2.5,{cut}[a];[y]atrim=2.5:5,{cut}[c];"
        f"[1]{EVEN},atrim={from_s}:{from_s + length_s},{cut}[b];[a][b][c]concat=n=3:v=0:a=1"
    )
    return _mixed(bench, parts, bench.voice, other)


@maker
def two_voices_in_turn(bench: Bench) -> Path:
    return _in_turn(bench, _man(bench), from_s=0.3, length_s=3)


@maker
def one_word_of_a_second_voice(bench: Bench) -> Path:
    return _in_turn(bench, _man(bench, "No!"), from_s=0.0, length_s=0.45)


@maker
def two_voices_at_once(bench: Bench) -> Path:
    return _mixed(
        bench, f"[0]{EVEN}[a];[1]{EVEN}[b];[a][b]amix=duration=first", bench.voice, _man(bench)
    )


@maker
def one_voice_left_and_one_right(bench: Bench) -> Path:
    path = bench.new("wav")
    joined = f"[0]{EVEN}[a];[1]{EVEN}[b];[a][b]join=inputs=2:channel_layout=stereo"
    media.ffmpeg("-i", bench.voice, "-i", _man(bench), "-filter_complex", joined, "-t", "5", path)
    return path


@maker
def voices_left_and_right_in_turn(bench: Bench) -> Path:
    path = bench.new("wav")
    late = f"[0]{EVEN},atrim=0:3[a];[1]{EVEN},adelay=3000[b]"
    joined = f"{late};[a][b]join=inputs=2:channel_layout=stereo"
    longest = joined.replace("atrim=0:3", "atrim=0:3,apad=whole_dur=7")
    media.ffmpeg("-i", bench.voice, "-i", _man(bench), "-filter_complex", longest, "-t", "7", path)
    return path


@maker
def opposite_channels(bench: Bench) -> Path:
    return bench.convert("-af", "pan=stereo|c0=c0|c1=-1*c0", source=bench.voice, to="wav")


@maker
def voice_in_the_right_channel_alone(bench: Bench) -> Path:
    return bench.convert("-af", "pan=stereo|c1=c0", source=bench.voice, to="wav")


@maker
def music_under_the_voice(bench: Bench) -> Path:
    path = bench.new("wav")
    mixed = f"[0]{EVEN}[v];[1]{EVEN},volume=-10dB[m];[v][m]amix=duration=first:normalize=0"
    music = ("-f", "lavfi", "-i", f"aevalsrc='{CHORD}':s=16000:d=6")
    media.ffmpeg("-i", bench.voice, *music, "-filter_complex", mixed, path)
    return path


@maker
def telephone(bench: Bench) -> Path:
    return bench.convert("-ar", "8000", "-c:a", "pcm_mulaw", source=bench.voice, to="wav")


@maker
def float_at_192_khz(bench: Bench) -> Path:
    return bench.convert("-ar", "192000", "-c:a", "pcm_f32le", source=bench.voice, to="wav")


@maker
def seven_point_one(bench: Bench) -> Path:
    return bench.convert("-af", "pan=7.1|FC=c0", "-ar", "48000", source=bench.voice, to="wav")


@maker
def variable_mp3_without_a_table(bench: Bench) -> Path:
    options = ("-c:a", "libmp3lame", "-q:a", "4", "-write_xing", "0", "-id3v2_version", "0")
    return bench.convert(*options, source=bench.voice, to="mp3")


@maker
def voice_called_mp4(bench: Bench) -> Path:
    return bench.write(bench.voice.read_bytes(), "mp4")


@maker
def tag_of_40_megabytes(bench: Bench) -> Path:
    return _tagged(bench, 40 << 20)


@maker
def tag_of_5_megabytes(bench: Bench) -> Path:
    """A large cover, as music shops put in."""
    return _tagged(bench, 5 << 20)


def _tagged(bench: Bench, picture_bytes: int) -> Path:
    plain = variable_mp3_without_a_table(bench).read_bytes()
    picture = b"\x00image/jpeg\x00\x03\x00\xff\xd8\xff" + bytes(picture_bytes)
    frame = b"APIC" + _seven_bits(len(picture)) + b"\x00\x00" + picture
    return bench.write(b"ID3\x04\x00\x00" + _seven_bits(len(frame)) + frame + plain, "mp3")


def _seven_bits(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


@maker
def voice_cut_in_half(bench: Bench) -> Path:
    return media.truncated(bench.new("flac"), SAMPLES / "voice.flac", 0.5)
