"""What a user would write in an afternoon, with the libraries that are usually named for it.

    .venv-pyannote/bin/python -m bench.peer FILE…      from the root of the repository

pydub loads the sound, webrtcvad finds speech, pyannote.audio's SpeakerDiarization counts voices,
and a face detector looks at five frames a second that ffmpeg decodes. Not exactly one face, or not
exactly one speaker: reject. Prints JSON lines: the start, then one for each file. CPU seconds.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import webrtcvad
from pydub import AudioSegment
from pydub.exceptions import CouldntDecodeError

from bench.cpu import Spent
from bench.ours import kind_of
from validators.analysis.models.face_detector import Detector
from validators.analysis.models.pyannote_speakers import PyannoteSpeakers
from validators.analysis.speaker_choice import EngineName, SpeakerChoice
from validators.analysis.weights import path_of
from validators.facts import Kind
from validators.media.sandbox import tool_name

RATE_HZ = 16_000
VAD_FRAME_BYTES = RATE_HZ * 2 * 30 // 1000  # it takes 10, 20 or 30 ms
VAD_MODE = 2  # of 0..3, the more the stricter
SIDE = 640  # frames are fitted into a square of so many pixels
FRAMES_PER_S = 5
SURE = 0.8  # confidence of a face


class Peer:
    """Every model of it, loaded once."""

    def __init__(self) -> None:
        self._voices = PyannoteSpeakers(None, SpeakerChoice(engine=EngineName.PYANNOTE))
        self._detector = Detector(path_of("libfacedetection.onnx", None))
        self._vad = webrtcvad.Vad(VAD_MODE)

    def look(self, path: Path, kind: Kind) -> dict[str, Any]:
        """Speakers, faces and a verdict; None for what a kind does not have."""
        speakers, faces, speech_s = None, None, None
        try:
            if kind is not Kind.IMAGE:
                sound = load(path)
                speech_s, speakers = self._speech_s(sound), self._speakers(sound)
            if kind is not Kind.AUDIO:
                faces = self._faces(path, kind)
        except (CouldntDecodeError, IndexError, subprocess.CalledProcessError) as exc:
            return {"verdict": "rejected", "error": type(exc).__name__}
        right = all(count in {None, 1} for count in (speakers, faces))
        return {
            "verdict": "accepted" if right else "rejected",
            "speakers": speakers,
            "faces": faces,
            "speech_s": speech_s,
        }

    def _speech_s(self, sound: bytes) -> float:
        starts = range(0, len(sound) - VAD_FRAME_BYTES + 1, VAD_FRAME_BYTES)
        pieces = [sound[at : at + VAD_FRAME_BYTES] for at in starts]
        return 0.03 * [self._vad.is_speech(piece, RATE_HZ) for piece in pieces].count(True)

    def _speakers(self, sound: bytes) -> int:
        facts = self._voices.measure(sound, ((0.0, len(sound) / 2 / RATE_HZ),))
        return int(facts.features.get("speakers", 0))

    def _faces(self, path: Path, kind: Kind) -> int:
        """The most in one frame; 0 where a frame shows none."""
        seen = (self._detector.detect(frame) for frame in frames(path, kind))
        counts = [int(np.count_nonzero(found[:, 4] >= SURE)) for found in seen]
        fewest = min(counts, default=0)
        return max(counts) if fewest else 0


def load(path: Path) -> bytes:
    sound = AudioSegment.from_file(path).set_channels(1).set_frame_rate(RATE_HZ)
    data: bytes = sound.set_sample_width(2).raw_data
    return data


def frames(path: Path, kind: Kind) -> list[Any]:
    """(height, width, 3) BGR, each fitted into a square with black around it."""
    fit = f"scale={SIDE}:{SIDE}:force_original_aspect_ratio=decrease,pad={SIDE}:{SIDE}:-1:-1"
    pace = "" if kind is Kind.IMAGE else f"fps={FRAMES_PER_S},"
    argv = [tool_name("ffmpeg"), "-v", "error", "-nostdin", "-i", str(path), "-vf", pace + fit]
    raw = ("-f", "rawvideo", "-pix_fmt", "bgr24", "-")
    ended = subprocess.run([*argv, *raw], check=True, capture_output=True)
    return list(np.frombuffer(ended.stdout, np.uint8).reshape(-1, SIDE, SIDE, 3))


def main() -> None:
    peer = Peer()
    peer.look(Path(sys.argv[1]), kind_of(Path(sys.argv[1])))  # what is loaded late is loaded now
    print(json.dumps({"start_s": Spent.until_now().total}), flush=True)
    for word in sys.argv[1:]:
        path = Path(word)
        before = Spent.until_now()
        seen = peer.look(path, kind_of(path))
        spent_s = (Spent.until_now() - before).total
        print(json.dumps({"path": word, "cpu_s": spent_s, **seen}), flush=True)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
    print(json.dumps({"peak_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
