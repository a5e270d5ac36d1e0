"""Which frame of a clip shows its person best: from the front, eyes open, sharp, mouth closed."""

import math

from validators.facts import FaceFacts, FaceLook, FrameFacts

ANGLE_DEG = 12.0  # turned by so much a frame is worth 0.6 of a frontal one, as in a bell curve
OPEN_MOUTH = 0.12  # face heights: as open as speech makes it; costs half
SURE_PRESENCE = 0.9  # of the mesh network; below it a look means nothing
COMPANY = 0.1  # what a frame is worth that shows more than one face


def best_frame(faces: FaceFacts) -> FrameFacts | None:
    """The frame with the highest score, the earliest of equals; None where none was seen closely.

    Eyes and sharpness count beside the clip's own best: how far an eye opens differs by person,
    and blinks and movements are what a choice can avoid.
    """
    close = [(frame, frame.look) for frame in faces.frames if frame.look is not None]
    sure = [(frame, look) for frame, look in close if look.presence >= SURE_PRESENCE]
    if not sure:
        return None
    eyes_open = max(look.eyes_open for _, look in sure)
    sharpness = max(look.sharpness for _, look in sure)
    scored = [
        (score(look, eyes_open=eyes_open, sharpness=sharpness) * _alone(frame), frame)
        for frame, look in sure
    ]
    return max(scored, key=lambda pair: pair[0])[1]


def score(look: FaceLook, *, eyes_open: float, sharpness: float) -> float:
    """0..1, the product of what matters. *eyes_open*, *sharpness*: the best that the clip has."""
    turned_deg = math.hypot(look.yaw_deg, look.pitch_deg, look.roll_deg)
    frontal = math.exp(-((turned_deg / ANGLE_DEG) ** 2) / 2)
    eyes = min(1.0, look.eyes_open / max(eyes_open, 1e-9)) ** 2
    sharp = min(1.0, look.sharpness / max(sharpness, 1e-9))
    mouth = 1 - min(1.0, look.mouth_open / OPEN_MOUTH) / 2
    lit = 1 - max(look.burnt, look.black)
    return frontal * eyes * sharp * mouth * lit * (1 - look.outside)


def _alone(frame: FrameFacts) -> float:
    return 1.0 if len(frame.faces) == 1 else COMPANY
