"""Lines of text in a grey picture, whoever wrote them: on a wall, on a shirt, or laid over it.

The network is PP-OCRv4's mobile detector. It gives each pixel the probability that it lies in
the shrunken core of a line ("Real-time Scene Text Detection with Differentiable Binarization",
Liao et al., AAAI 2020); a core that is probable enough is grown back to the line.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from validators.analysis.models.sessions import session

Luma = npt.NDArray[np.uint8]  # (height, width)

_STRIDE = 32  # of the network: sides are multiples of it
_CORE = 0.3  # probability of a pixel in a core; the authors' own
_LEAST_CONFIDENCE = 0.6  # mean probability of a core; the authors' own
_GROWTH = 1.5  # area over perimeter by which a core grows; the authors' own
_LEAST_SIDE = 3  # pixels of a core that can be a line at all
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """One upright box. Shares of the picture, from its top left."""

    left: float
    top: float
    right: float
    bottom: float
    confidence: float


class TextDetector:
    """Not to be shared between threads."""

    def __init__(self, path: Path) -> None:
        cv2.setNumThreads(1)
        self._net = session(path)
        self._input = self._net.get_inputs()[0].name

    def lines(self, luma: Luma, *, pixels: int) -> list[TextLine]:
        """The lines of *luma*, shrunk to about so many *pixels*, which are what it costs."""
        height, width = luma.shape
        scale = min(1.0, (pixels / luma.size) ** 0.5)
        size = tuple(max(1, round(side * scale / _STRIDE)) * _STRIDE for side in (width, height))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(luma, size, interpolation=method).astype(np.float32) / 255
        planes = [(small - mean) / part for mean, part in zip(_MEAN, _DEVIATION, strict=True)]
        return _lines(self._net.run(None, {self._input: np.stack(planes)[None]})[0][0, 0])


def _lines(probability: npt.NDArray[Any]) -> list[TextLine]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (probability > _CORE).astype(np.uint8)
    )
    found = []
    for label in range(1, count):
        left, top, width, height = (int(value) for value in stats[label][:4])
        if min(width, height) < _LEAST_SIDE:
            continue
        inside = (slice(top, top + height), slice(left, left + width))
        confidence = float(probability[inside][labels[inside] == label].mean())
        if confidence >= _LEAST_CONFIDENCE:
            found.append(_grown(left, top, width, height, confidence, probability.shape))
    return found


def _grown(  # noqa: PLR0917 - a box, its confidence and where it lies
    left: int, top: int, width: int, height: int, confidence: float, shape: tuple[int, ...]
) -> TextLine:
    margin = _GROWTH * width * height / (2 * (width + height))
    rows, columns = shape
    return TextLine(
        left=max(0.0, left - margin) / columns,
        top=max(0.0, top - margin) / rows,
        right=min(float(columns), left + width + margin) / columns,
        bottom=min(float(rows), top + height + margin) / rows,
        confidence=confidence,
    )
