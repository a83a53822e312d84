"""How much memory the native core will take, so that what cannot fit is refused and not killed.

An operating system grants more memory than it has, and ends the process that then uses it.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from rowwise import config
from rowwise.errors import EngineError
from rowwise.network import READINGS, Join, Network, Node, Output, Picture

PANEL = 16  # floats: the width in which the core keeps every value
NOTICED = 2**28  # bytes: less is not worth the look at what is free

# Values that a recurrent layer keeps for each step and unit on the way forward, its own among them.
_RECURRENT = {"simple_rnn": 2, "lstm": 7, "gru": 5}


def needed(network: Network, batch: int, *, threads: int, training: bool) -> int:
    """About how many bytes `threads` threads take for batches of `batch` pictures.

    In training they share the batch, in reading each has one of its own.
    """
    pictures = batch + threads if training else batch * threads
    # Weights, two slots and what is derived from the weights; a thread has gradients of its own.
    copies = 5 + threads if training else 2
    weights = sum(_padded(p.shape) for p in network.parameters.values())
    values = sum(_values(node, training=training) for node in network.nodes)
    return 4 * (copies * weights + pictures * values)


class Room:
    """The memory of one network in the core; what was granted once is not asked for again."""

    def __init__(self, network: Network, threads: int, *, training: bool) -> None:
        self._network, self._threads, self._training = network, threads, training
        self._granted = 1

    def grant(self, batch: int) -> int:
        """The batch. Raises EngineError where the memory that it takes is not free."""
        if batch > self._granted:
            self._require(batch)
            self._granted = batch
        return batch

    def _require(self, batch: int) -> None:
        network, threads = self._network, self._threads
        bytes_needed = needed(network, batch, threads=threads, training=self._training)
        bytes_free = free() if bytes_needed > NOTICED else None
        if bytes_free is not None and bytes_needed > bytes_free:
            task = "training" if self._training else "reading"
            raise EngineError(
                f"{task} {network.experiment.name} in batches of {batch:,} by {threads} threads "
                f"takes about {bytes_needed / 2**30:,.1f} GiB of memory, "
                f"{bytes_free / 2**30:,.1f} GiB are free; reduce the batch, the units or the "
                f"number of threads"
            )


def free() -> int | None:
    """The bytes of memory that this process may still take, or None where nobody tells."""
    told = []
    info = Path("/proc/meminfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text("ascii").splitlines())
        told.append(int(fields["MemAvailable"].split()[0]) * 1024)
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        told.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's
    if limit.exists() and (word := limit.read_text("ascii").strip()) != "max":
        told.append(int(word))
    return min(told, default=None)


def _values(node: Node, *, training: bool) -> int:
    """Floats that a node keeps for each picture: its value, and in training what leads back."""
    own = _padded(node.output_shape)
    match node.layer:
        case config.Flatten():
            return 0  # sees its input otherwise
        case config.Recurrent() as layer:
            states = _states(node, layer)
            return own + (own + states * _RECURRENT[layer.kind] if training else states)
        case config.BatchNorm() | config.Dropout():
            return own * (3 if training else 1)
        case config.Dense() | Output() | config.Pool() | Join():
            return own * (2 if training else 1)
        case Picture():
            return own
        case layer if isinstance(layer, READINGS):
            return own
    raise TypeError(f"{node.layer!r} is not a layer")


def _states(node: Node, layer: config.Recurrent) -> int:
    """Floats of one value of each unit at each step, both ways."""
    ways = 2 if layer.bidirectional else 1
    return ways * _padded((node.input_shapes[0][0] + 1, layer.units))


def _padded(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1]) * -(-shape[-1] // PANEL) * PANEL
