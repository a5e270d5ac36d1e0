"""The main face seen closely: MediaPipe's face mesh gives its points, the rest is geometry.

The network sees upright faces alone and says of any other that it is none. So a crop in which it
finds nothing is turned by quarters until it does: detectors list faces that lie on their side,
and give them upright landmarks.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from validators.facts import FaceLook

Picture = npt.NDArray[np.uint8]  # (height, width, 3), BGR
Crop = npt.NDArray[np.uint8]  # (192, 192, 3), BGR, the face upright in its middle
Points = npt.NDArray[np.float64]  # (468, 3): x to the right, y down, z away, in pixels of the crop
Grey = npt.NDArray[np.float64]

_SIDE = 192  # pixels of the network's input
_FINE = 2 * _SIDE
_ROOM = 1.5  # sides of the face in it, as the network was trained
_POINTS = 468
_SURE_LOGIT = 12.0  # upright faces: 16 and more; turned, blurred and drawn ones: below 11

# Points of MediaPipe's canonical face; right and left are the picture's.
_PAIRS = ((33, 263), (133, 362), (61, 291), (127, 356))  # eyes' corners, mouth's, temples
_FOREHEAD, _CHIN = 10, 152
_LIPS = (13, 14)  # inner, upper and lower
_EYES = (  # two corners, then two pairs of upper and lower lid
    (33, 133, 160, 144, 158, 153),
    (362, 263, 385, 380, 387, 373),
)
_SKIN = (5, 36, 50, 117, 187, 205, 266, 280, 346, 411, 425)  # nose and cheeks, around them a hull

# The line from forehead to chin leans back in a face that looks straight ahead.
_LEVEL_DEG = -5.0  # about the median of 23 portraits (-8) and 18 clips (-3)

_SHARPNESS_SIDE, _SHARPNESS_BLUR = 96, 5  # the crop's, and the low-pass filter's
_WHITE, _BLACK = 0.96, 0.06  # luma as good as white, and as good as black


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """A square of the picture: its middle and side in pixels, and how far it is turned."""

    middle: npt.NDArray[np.float64]
    side: float
    roll_deg: float

    @property
    def to_picture(self) -> npt.NDArray[np.float64]:
        """(2, 3): from pixels of the crop to those of the picture."""
        turn = self.side / _SIDE * _rotation(self.roll_deg)
        return np.column_stack([turn, self.middle - turn @ np.full(2, _SIDE / 2)])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """What the network makes of a view."""

    view: _View
    crop: Crop
    points: Points
    logit: float  # of there being a face

    @property
    def presence(self) -> float:
        return float(1 / (1 + np.exp(-self.logit)))


class Mesh:
    """Not to be shared between threads."""

    def __init__(self, path: Path) -> None:
        self._net = Interpreter(model_path=str(path), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = {int(out["shape"][-1]): out["index"] for out in self._net.get_output_details()}
        self._points, self._logit = outputs[3 * _POINTS], outputs[1]

    def look(
        self,
        picture: Picture,
        box: npt.ArrayLike,
        landmarks: npt.ArrayLike | None = None,
    ) -> FaceLook | None:
        """The face in *box*: left, top, width, height in pixels; None where that is no area.

        *landmarks*: (5, 2), as the detector lists them: right eye, left eye, nose, right and left
        mouth corner. They only say how far to turn the crop.
        """
        sides = np.asarray(box, np.float64)[2:4]
        if sides.min() < 1:
            return None
        fit = self._find(picture, _view(box, landmarks))
        grey = cv2.cvtColor(fit.crop, cv2.COLOR_BGR2GRAY).astype(np.float64)
        skin = grey[_hull(fit.points[list(_SKIN)])] / 255
        yaw_deg, pitch_deg, roll_deg = pose(fit.points)
        return FaceLook(
            presence=fit.presence,
            yaw_deg=yaw_deg,
            pitch_deg=pitch_deg,
            roll_deg=half_turn(fit.view.roll_deg + roll_deg),
            mouth_open=_distance(fit.points, *_LIPS) / _distance(fit.points, _FOREHEAD, _CHIN),
            eyes_open=min(_opening(fit.points, eye) for eye in _EYES),
            sharpness=sharpness(grey, _hull(fit.points)),
            luma=float(skin.mean()),
            burnt=float((skin >= _WHITE).mean()),
            black=float((skin <= _BLACK).mean()),
            outside=_outside(fit, picture),
        )

    def _find(self, picture: Picture, view: _View) -> _Fit:
        """Twice: the second view lies around what the first one found, wherever the box was."""
        fit = self._fit(picture, view)
        if fit.logit < _SURE_LOGIT:
            others = [self._fit(picture, _turned(view, by_deg)) for by_deg in (90, 180, 270)]
            fit = max([fit, *others], key=lambda each: each.logit)
        closer = self._fit(picture, _around(fit))
        return closer if closer.logit >= min(fit.logit, _SURE_LOGIT) else fit

    def _fit(self, picture: Picture, view: _View) -> _Fit:
        crop = _cut(picture, view)
        self._net.set_tensor(self._input, crop[None, :, :, ::-1].astype(np.float32) / 255)
        self._net.invoke()
        points = self._net.get_tensor(self._points).reshape(_POINTS, 3).astype(np.float64)
        logit = float(self._net.get_tensor(self._logit).ravel()[0])
        return _Fit(view=view, crop=crop, points=points, logit=float(np.clip(logit, -40, 40)))


def pose(points: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees, as FaceLook has them, of a mesh that stands upright.

    The face's own axes: the mean of the lines between points that mirror each other, and the line
    from forehead to chin made square to it; what is square to both is where the face looks. The
    network's depth is flat: it gives a full profile about 50 degrees.
    """
    lines = np.array([_unit(points[left] - points[right]) for right, left in _PAIRS])
    across = _unit(lines.sum(axis=0))
    down = points[_CHIN] - points[_FOREHEAD]
    down = _unit(down - across * (down @ across))
    ahead = -np.cross(across, down)
    yaw = np.degrees(np.arctan2(ahead[0], -ahead[2]))
    pitch = np.degrees(np.arcsin(np.clip(-ahead[1], -1, 1))) - _LEVEL_DEG
    roll = np.degrees(np.arctan2(across[1], across[0]))
    return float(yaw), float(pitch), float(roll)


def sharpness(grey: Grey, face: npt.NDArray[np.bool_]) -> float:
    """0..1: the share of the grey levels' changes that a low-pass filter takes away.

    Crété-Roffet et al., "The Blur Effect" (2007), of the face alone and always 64 pixels high: a
    share, so contrast cancels; of one size, so detail that was never there is missed at any
    resolution. *face*: (192, 192), where in *grey* it is.
    """
    size = (_SHARPNESS_SIDE, _SHARPNESS_SIDE)
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float64)
    shrunk = cv2.resize(face.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    within = cv2.erode(shrunk, np.ones((5, 5), np.uint8)) > 0  # the outline is the background's
    return min(_kept_apart(small, within), _kept_apart(small.T, within.T))


def half_turn(degrees: float) -> float:
    """The same direction, over -180 and up to 180."""
    return float(180 - (180 - degrees) % 360)


def _kept_apart(grey: Grey, within: npt.NDArray[np.bool_]) -> float:
    """Along the second axis. 0 where nothing changes."""
    blurred = cv2.blur(grey, (_SHARPNESS_BLUR, 1))
    change, blurred_change = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(blurred, axis=1))
    inner = within[:, 1:]
    total = float(change[inner].sum())
    return float(np.maximum(change - blurred_change, 0)[inner].sum()) / total if total else 0.0


def _view(box: npt.ArrayLike, landmarks: npt.ArrayLike | None) -> _View:
    left, top, width, height = np.asarray(box, np.float64)[:4]
    return _View(
        middle=np.array([left + width / 2, top + height / 2]),
        side=float(max(width, height)) * _ROOM,
        roll_deg=0.0 if landmarks is None else _roll(np.asarray(landmarks, np.float64)),
    )


def _roll(landmarks: npt.NDArray[np.float64]) -> float:
    """How far the line from the eyes to the mouth is turned clockwise from straight down."""
    down = landmarks[3:5].mean(axis=0) - landmarks[:2].mean(axis=0)
    return float(np.degrees(np.arctan2(-down[0], down[1])))


def _turned(view: _View, by_deg: float) -> _View:
    return _View(middle=view.middle, side=view.side, roll_deg=view.roll_deg + by_deg)


def _around(fit: _Fit) -> _View:
    """The view whose middle is that of the points, turned so that their eyes are level."""
    flat = fit.points[:, :2]
    low, high = flat.min(axis=0), flat.max(axis=0)
    (*_, roll_deg), to_picture = pose(fit.points), fit.view.to_picture
    return _View(
        middle=to_picture @ np.append((low + high) / 2, 1),
        side=float((high - low).max()) * _ROOM * fit.view.side / _SIDE,
        roll_deg=fit.view.roll_deg + roll_deg,
    )


def _cut(picture: Picture, view: _View) -> Crop:
    """*view* as the network wants it; what lies outside the picture repeats its edge.

    Cut out at twice the size and averaged: picking single pixels of a large face would invent
    detail.
    """
    times = max(1, int(view.side // _FINE))
    if times > 1:
        height, width = (side // times for side in picture.shape[:2])
        whole = picture[: height * times, : width * times]
        picture = np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
    move = view.to_picture / times @ np.diag([_SIDE / _FINE, _SIDE / _FINE, 1])
    fine = cv2.warpAffine(
        picture,
        move.astype(np.float32),
        (_FINE, _FINE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(cv2.resize(fine, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _hull(points: Points) -> npt.NDArray[np.bool_]:
    """(192, 192): what lies within all *points*."""
    mask = np.zeros((_SIDE, _SIDE), np.uint8)
    outline = cv2.convexHull(np.round(points[:, :2]).astype(np.int32))
    return np.asarray(cv2.fillConvexPoly(mask, outline, 1), np.bool_)


def _outside(fit: _Fit, picture: Picture) -> float:
    """The share of the points' hull beyond the edges of *picture*."""
    on_picture = fit.points[:, :2] @ fit.view.to_picture[:, :2].T + fit.view.to_picture[:, 2]
    face = cv2.convexHull(on_picture.astype(np.float32))
    height, width = picture.shape[:2]
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    within, _ = cv2.intersectConvexConvex(face, frame)
    return float(np.clip(1 - within / max(cv2.contourArea(face), 1e-9), 0, 1))


def _opening(points: Points, eye: tuple[int, ...]) -> float:
    """Soukupová and Čech's eye aspect ratio (2016), in space: it holds for a turned face."""
    right, left, *lids = eye
    apart = _distance(points, lids[0], lids[1]) + _distance(points, lids[2], lids[3])
    return apart / 2 / _distance(points, right, left)


def _distance(points: Points, one: int, other: int) -> float:
    return float(np.linalg.norm(points[one] - points[other]))


def _rotation(degrees: float) -> npt.NDArray[np.float64]:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def _unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
