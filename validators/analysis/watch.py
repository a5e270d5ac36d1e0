"""What the child sees of one medium: every frame is compared, and looked at where it matters.

A frame is looked at for faces when it is due, and when any part of it differs from the frame
that was looked at last: so nobody shows for three frames without being seen, and a picture in
which little happens costs little.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from validators.analysis.models.engines import Engines
from validators.analysis.models.face_detector import LANDMARKS, Picture
from validators.analysis.models.faces import Edges, Row, Sighting, edges
from validators.analysis.models.identity import Embedding, strangers
from validators.analysis.models.overlays import Search, SeenOverlay, overlay_facts
from validators.analysis.motion import Motion, News
from validators.analysis.wire import BYTES_PER_PIXEL, FrameStream
from validators.facts import FaceFacts, FaceLook, FrameFacts, MotionFacts, OverlayFacts

LOOKS_PER_S = 2.5
MOST_LOOKS_PER_S = 40  # of a picture that flickers
SAVED_LOOKS = 10.0  # of these, for where frames come slower than they do on average
CONFIRMATIONS_PER_S = 1.0  # of a main face that stays where it was
EMBEDDINGS_PER_S = 2 / 3  # and wherever another face may have taken the place of the first
MOST_EMBEDDINGS_PER_S = 20  # three frames at 60 fps last as long as the time between two
KNOWN_HEIGHT = 40  # pixels; smaller faces are too coarse to be told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What was seen. Times are those of frames at an even pace: who knows better sets them."""

    faces: FaceFacts
    overlays: OverlayFacts
    motion: MotionFacts | None = None


def watch(frames: Iterable[bytes], stream: FrameStream, engines: Engines) -> Sight:
    """Look at *frames* as they come and keep none."""
    if stream.still:
        return _regard(frames, stream, engines)
    watching = _Watching(stream=stream, engines=engines, search=engines.overlays.search(stream))
    for frame in frames:
        watching.see(np.frombuffer(frame, np.uint8))
    return watching.sight()


def _regard(frames: Iterable[bytes], stream: FrameStream, engines: Engines) -> Sight:
    """The one frame of a still image, if it came whole."""
    looks: list[FrameFacts] = []
    overlays: tuple[SeenOverlay, ...] = ()
    for frame in frames:
        picture = np.frombuffer(frame, np.uint8)
        picture = picture.reshape(stream.height, stream.width, BYTES_PER_PIXEL)
        sighting = engines.faces.look(picture)
        look = _closely(picture, sighting, engines)
        looks.append(FrameFacts(time_s=0.0, faces=sighting.faces, look=look))
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
        overlays = engines.overlays.in_still(grey)
    return Sight(
        faces=FaceFacts(frames=tuple(looks), interval_s=0),
        overlays=overlay_facts(overlays, [0.0], every_s=0, frames=len(looks)),
    )


def _closely(picture: Picture, sighting: Sighting, engines: Engines) -> FaceLook | None:
    """The largest face, even a doubtful one: faces that lie on their side are."""
    face = sighting.largest
    if face is None:
        return None
    return engines.mesh.look(picture, face[:4], face[LANDMARKS].reshape(-1, 2))


@dataclass(slots=True, kw_only=True)
class _Watching:
    """One video in progress."""

    stream: FrameStream
    engines: Engines
    search: Search
    motion: Motion = field(default_factory=Motion)
    looks: list[FrameFacts] = field(default_factory=list)
    embeddings: dict[int, Embedding] = field(default_factory=dict)  # by the number of the look
    main: Edges | None = None  # where the main face was when it was last looked for
    confirmed: Edges | None = None
    spare: float = SAVED_LOOKS  # looks that may be taken at once
    next_look: int = 0  # numbers of frames: what is due then
    next_confirmation: int = 0
    next_embedding: int = 0
    next_chance: int = 0  # of another face in the place of the first

    def see(self, frame: npt.NDArray[np.uint8]) -> None:
        """*frame*: one yuv420p frame, flat."""
        stream, number = self.stream, len(self.motion.thumbs)
        luma = frame[: stream.height * stream.width].reshape(stream.height, stream.width)
        self.search.glance(luma, number)
        self.motion.see(luma)
        news = self.motion.news(self.main)
        self.spare = min(SAVED_LOOKS, self.spare + MOST_LOOKS_PER_S / stream.per_s)
        if number >= self.next_look or (news.anything and self.spare >= 1):
            self.motion.look()
            self.spare -= 1
            self._look(_bgr(frame, stream), number, news)

    def _in(self, per_s: float, number: int) -> int:
        """The frame after *number* at which something is due that is done so often."""
        return number + max(1, round(self.stream.per_s / per_s))

    def _look(self, picture: Picture, number: int, news: News) -> None:
        known = self.confirmed if number < self.next_confirmation else None
        due = number >= self.next_look
        sighting = self.engines.faces.look(picture, known=known, quickly=not due)
        self.main = None if sighting.main is None else edges(sighting.main, picture)
        if sighting.confirmed:
            self.confirmed, self.next_confirmation = (
                self.main,
                self._in(CONFIRMATIONS_PER_S, number),
            )
        if sighting.main is not None and sighting.trusted:
            self._know(picture, sighting.main, number, news)
        look = None
        if due:
            self.next_look = self._in(LOOKS_PER_S, number)
            look = _closely(picture, sighting, self.engines)
        time_s = number / self.stream.per_s
        self.looks.append(FrameFacts(time_s=time_s, faces=sighting.faces, number=number, look=look))

    def _know(self, picture: Picture, face: Row, number: int, news: News) -> None:
        """Whose face it is: now and then, and where it may be another's."""
        due = number >= self.next_embedding
        again = news.face and number >= self.next_chance
        if (due or again) and face[3] >= KNOWN_HEIGHT:
            embedding = self.engines.identity.embed(picture, face[LANDMARKS])
            self.embeddings[len(self.looks)] = embedding
            self.next_embedding = self._in(EMBEDDINGS_PER_S, number)
            self.next_chance = self._in(MOST_EMBEDDINGS_PER_S, number)

    def sight(self) -> Sight:
        times_s = tuple(n / self.stream.per_s for n in range(len(self.motion.thumbs)))
        return Sight(
            faces=FaceFacts(frames=self._with_strangers(), interval_s=1 / LOOKS_PER_S),
            overlays=overlay_facts(
                self.search.finish(),
                times_s,
                every_s=self.search.every / self.stream.per_s,
                frames=len(self.search.glances),
            ),
            motion=self.motion.facts(times_s),
        )

    def _with_strangers(self) -> tuple[FrameFacts, ...]:
        """The looks, with how far each identity is from the clip's own."""
        looks = list(self.looks)
        for at, distance in zip(
            self.embeddings, strangers([*self.embeddings.values()]), strict=True
        ):
            looks[at] = replace(looks[at], stranger=round(distance, 3))
        return tuple(looks)


def _bgr(frame: npt.NDArray[np.uint8], stream: FrameStream) -> Picture:
    planes = frame.reshape(stream.height * 3 // 2, stream.width)
    return cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420).astype(np.uint8, copy=False)
