"""What confines a media tool, and what a trial found of it. Pure; `self_check` runs the trial."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel


class Layer(StrEnum):
    """A right that is given up before the tool starts. Values are public: metrics and `/readyz`."""

    LIMITS = "limits"  # memory, processor time, file size, descriptors; no new privileges
    NAMESPACES = "namespaces"  # an empty network of its own
    LANDLOCK = "landlock"  # reads the medium alone, writes nothing
    SECCOMP = "seccomp"  # no sockets, no processes, no signals


# What `GREENROOM_SANDBOX=required` wants. Containers rarely may make namespaces; an empty network
# is a second wall behind the filter, which refuses every socket already.
REQUIRED = frozenset({Layer.LIMITS, Layer.LANDLOCK, Layer.SECCOMP})


class Trial(BaseModel):
    """What `media.trial` printed: the errno of each thing that it tried, 0 where it succeeded."""

    memory: int
    thread: int
    read_file: int
    list_folder: int
    write_file: int
    tcp: int
    udp: int
    unix: int
    fork: int
    network: str  # the name of its network namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Every layer with the reason why it is missing; None: it holds."""

    rows: Mapping[Layer, str | None]

    @property
    def active(self) -> frozenset[Layer]:
        return frozenset(layer for layer, missing in self.rows.items() if missing is None)

    @property
    def missing(self) -> dict[Layer, str]:
        return {layer: why for layer, why in self.rows.items() if why is not None}

    def lacking(self) -> str | None:
        """A sentence that names what is required and missing, or None."""
        lacking = [f"{layer} ({self.rows[layer]})" for layer in REQUIRED - self.active]
        return f"the sandbox lacks {', '.join(sorted(lacking))}" if lacking else None


def found(trial: Trial, refused: Mapping[str, str], *, our_network: str) -> Layers:
    """Judge *trial*. *refused*: what the kernel answered to the layers that could not be had."""
    holds = {
        Layer.LIMITS: trial.memory == errno.ENOMEM,
        Layer.NAMESPACES: trial.network not in {"", our_network} and trial.thread == 0,
        Layer.LANDLOCK: {trial.read_file, trial.list_folder} == {errno.EACCES}
        and trial.write_file in {errno.EACCES, errno.EPERM},  # the filter answers before it
        Layer.SECCOMP: {trial.tcp, trial.udp, trial.unix, trial.fork} == {errno.EPERM},
    }
    silent = "was set, and does not hold"
    return Layers(
        rows={layer: None if held else refused.get(layer, silent) for layer, held in holds.items()}
    )
