"""Broken media, each told by two numbers: `mutant(seed, number, parents)` is always the same.

`python -m tests.fuzz.mutate SEED NUMBER FILE` writes one, to look into what it did. Numbers in
headers change first, while the medium is whole and its layout known; bytes go astray after that.
"""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.layout import Layout, Number, layout_of, seal
from tests.fuzz.parents import Parent, make_parents
from validators.facts import Kind

MOST_OPERATIONS = 4
MOST_BYTES = 4_000_000  # a file that is doubled four times
SEALED_SHARE = 0.85
AT_BORDER_SHARE = 0.6
FOURCCS = (
    *(b"moov", b"mdat", b"free", b"trak", b"stsd", b"dref", b"avc1", b"hvc1", b"mp4a", b"jpeg"),
    *(b"LIST", b"data", b"fmt ", b"idx1", b"movi", b"IDAT", b"IEND", b"fdAT", b"ANMF", b"raw "),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    seed: int
    number: int
    parent: str
    kind: Kind
    container: str  # the parent's
    operations: tuple[str, ...]
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What an operation works on."""

    data: bytearray
    layout: Layout  # the parent's: borders are where they were
    container: str
    parents: Sequence[Parent]
    rng: random.Random

    def place(self) -> int:
        """Some place in the file, mostly where a part begins."""
        parts = self.layout.parts
        if parts and self.rng.random() < AT_BORDER_SHARE:
            return min(len(self.data), max(0, self.rng.choice(parts)[0] + self.rng.choice(NEAR)))
        return self.rng.randrange(len(self.data) + 1)

    def range(self) -> tuple[int, int]:
        """A part, or some bytes: mostly few."""
        parts = self.layout.parts
        if parts and self.rng.random() < AT_BORDER_SHARE:
            start, end = self.rng.choice(parts)
            if end <= len(self.data):
                return start, end
        start = self.place()
        return start, min(len(self.data), start + int(2 ** self.rng.uniform(0, 14)))


NEAR = (0, 0, 0, 0, 4, 8, -1, 1)
Operation = Callable[[_Work], str]


def mutant(seed: int, number: int, parents: Sequence[Parent]) -> Mutant:
    """The *number*-th of the series *seed*. It takes its parents in turn."""
    parent = parents[number % len(parents)]
    rng = random.Random(f"{seed}:{number}")  # noqa: S311 - repeatable damage
    work = _Work(
        data=bytearray(parent.data),
        layout=layout_of(parent.data, parent.container),
        container=parent.container,
        parents=parents,
        rng=rng,
    )
    wanted = rng.randint(1, MOST_OPERATIONS)
    chosen = sorted(rng.choices(OPERATIONS, WEIGHTS, k=wanted), key=lambda each: each is not patch)
    done = tuple(operation(work) for operation in chosen)
    return Mutant(
        seed=seed,
        number=number,
        parent=parent.name,
        kind=parent.kind,
        container=parent.container,
        operations=done,
        data=bytes(work.data[:MOST_BYTES]),
    )


def patch(work: _Work) -> str:
    """A number in a header; rare ones as often as those that a file is full of."""
    numbers = _named(work.layout.numbers, work.rng)
    if not numbers:
        return flip(work)
    number = work.rng.choice(numbers)
    value = work.rng.choice(_interesting(number, work))
    number.write(work.data, value)
    if sealed := work.rng.random() < SEALED_SHARE:
        seal(work.data, work.layout, work.container)
    return f"patch {number.name} at {number.at} = {value}{'' if sealed else ', not sealed'}"


def _named(numbers: Sequence[Number], rng: random.Random) -> list[Number]:
    names = Counter(number.name for number in numbers)
    name = rng.choice(sorted(names)) if names else ""
    return [number for number in numbers if number.name == name]


def _interesting(number: Number, work: _Work) -> list[int]:
    was, most = number.read(work.data), number.mask
    near = [was + 1, was - 1, was * 2, was // 2, was ^ 1 << work.rng.randrange(8 * number.size)]
    ends = [0, 1, 2, most, most - 1, most >> 1, (most >> 1) + 1, len(work.data)]
    others = [work.rng.randrange(most + 1), 1000, 8192, 16384, 65535, 10**9]
    if number.name.endswith(".kind"):
        order = number.order
        others += [int.from_bytes(work.rng.choice(FOURCCS)[: number.size], order)] * 8
    return [value for value in (*near, *ends, *others) if 0 <= value <= most]


def truncate(work: _Work) -> str:
    at = work.place()
    del work.data[at:]
    return f"truncate at {at}"


def flip(work: _Work) -> str:
    count = int(2 ** work.rng.uniform(0, 8)) if work.data else 0
    for _ in range(count):
        work.data[work.rng.randrange(len(work.data))] ^= 1 << work.rng.randrange(8)
    return f"flip {count} bits"


def overwrite(work: _Work) -> str:
    start, end = work.range()
    with_what = work.rng.choice(("zeros", "ones", "noise"))
    filler = {"zeros": bytes(end - start), "ones": b"\xff" * (end - start)}
    work.data[start:end] = filler.get(with_what) or work.rng.randbytes(end - start)
    return f"overwrite {start}..{end} with {with_what}"


def delete(work: _Work) -> str:
    start, end = work.range()
    del work.data[start:end]
    return f"delete {start}..{end}"


def duplicate(work: _Work) -> str:
    start, end = work.range()
    times = work.rng.choice((1, 1, 2, 10, 100))
    times = min(times, MOST_BYTES // max(1, end - start))
    work.data[end:end] = work.data[start:end] * times
    return f"duplicate {start}..{end} {times} times"


def swap(work: _Work) -> str:
    first, second = sorted((work.range(), work.range()))
    if first[1] > second[0]:
        return flip(work)
    middle = work.data[first[1] : second[0]]
    swapped = work.data[slice(*second)] + middle + work.data[slice(*first)]
    work.data[first[0] : second[1]] = swapped
    return f"swap {first[0]}..{first[1]} and {second[0]}..{second[1]}"


def splice(work: _Work) -> str:
    """Go on with another file, of the same container for choice, or slip a piece of it in."""
    same = [parent for parent in work.parents if parent.container == work.container]
    other = work.rng.choice(same if work.rng.random() < AT_BORDER_SHARE else work.parents)
    at, start = work.place(), work.rng.randrange(len(other.data))
    if work.rng.random() < AT_BORDER_SHARE:
        work.data[at:] = other.data[start:]
        return f"splice {other.name} from {start} at {at}"
    end = min(len(other.data), start + int(2 ** work.rng.uniform(4, 14)))
    work.data[at:at] = other.data[start:end]
    return f"insert {other.name} {start}..{end} at {at}"


OPERATIONS: tuple[Operation, ...] = (
    patch,
    truncate,
    flip,
    overwrite,
    delete,
    duplicate,
    swap,
    splice,
)
WEIGHTS = (10, 1, 3, 2, 2, 2, 2, 2)


def main(argv: Sequence[str]) -> None:
    seed, number, out = int(argv[0]), int(argv[1]), Path(argv[2])
    with tempfile.TemporaryDirectory() as folder:
        made = mutant(seed, number, make_parents(Path(folder)))
    out.write_bytes(made.data)
    sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
