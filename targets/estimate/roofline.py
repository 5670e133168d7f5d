"""Kernels to milliseconds: each takes as long as its arithmetic or its memory traffic, and then a launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .kernels import Kernel

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
KINDS = ("dense", "pointwise", "grouped", "matmul", "memory")


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Of one kind of GPU. arithmetic: share of the peak that each kind of kernel reaches; bandwidth: of the memory's.

    launch_us: of each kernel, beyond both. base_ms: of each inference.
    """

    arithmetic: Mapping[str, float]
    bandwidth: float
    launch_us: float
    base_ms: float


class Load:
    """What a network asks of a GPU, one entry for each kernel."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.macs = np.array([kernel.macs for kernel in kernels], float)
        self.moved = np.array([kernel.weights + kernel.read + kernel.written for kernel in kernels], float)
        self.kinds = np.array([KINDS.index(kernel.kind) for kernel in kernels], int)

    def kernels_ms(
        self, efficiency: Efficiency, *, precision: str, peak_gmacs: float, bandwidth_gb_s: float
    ) -> NDArray[np.float64]:
        """Of each kernel. 10^9 a second is 10^6 a millisecond."""
        shares = np.array([efficiency.arithmetic.get(kind, np.inf) for kind in KINDS])[self.kinds]
        memory = BYTES[precision] * self.moved / (bandwidth_gb_s * 1e6 * efficiency.bandwidth)
        arithmetic = self.macs / (peak_gmacs * 1e6 * shares)
        each: NDArray[np.float64] = np.maximum(memory, arithmetic) + efficiency.launch_us / 1000
        return each

    def milliseconds(
        self, efficiency: Efficiency, *, precision: str, peak_gmacs: float, bandwidth_gb_s: float
    ) -> float:
        """Of one inference."""
        each = self.kernels_ms(efficiency, precision=precision, peak_gmacs=peak_gmacs, bandwidth_gb_s=bandwidth_gb_s)
        return efficiency.base_ms + float(each.sum())
