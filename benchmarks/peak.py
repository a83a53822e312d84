"""The processor's peak in matrix products, measured: JSON on stdout, in operations a second.

A product of two square matrices, the best of several sizes and repetitions, by PyTorch (MKL or
oneDNN) and by numpy (OpenBLAS): no epoch of training can be faster than its products at this rate.
bfloat16 is measured where the processor multiplies it itself; elsewhere it is emulated.

    python benchmarks/peak.py THREADS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

SIZES = (512, 1024, 2048)
REPEATS = 12


def rate(product: Callable[[Any, Any], Any], make: Callable[[int], Any], repeats: int) -> float:
    """Operations a second of the fastest product."""
    best = 0.0
    for size in SIZES:
        a, b = make(size), make(size)
        product(a, b)
        for _ in range(repeats):
            start = time.perf_counter()
            product(a, b)
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def main() -> None:
    """Measure and print."""
    import numpy as np
    import torch
    from measuring import BFLOAT16, processor_flags

    torch.set_num_threads(int(sys.argv[1]))
    repeats = 3 if "--quick" in sys.argv else REPEATS
    rng = np.random.default_rng(0)

    def floats(size: int) -> Any:
        return rng.random((size, size), np.float32)

    found = {
        "float32": {
            "torch": rate(torch.mm, lambda n: torch.from_numpy(floats(n)), repeats),
            "numpy": rate(np.matmul, floats, repeats),
        }
    }
    if BFLOAT16 & processor_flags():
        half = rate(torch.mm, lambda n: torch.from_numpy(floats(n)).bfloat16(), repeats)
        found["bfloat16"] = {"torch": half}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
