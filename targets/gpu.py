"""Is there an NVIDIA GPU in this machine, and which one? Asked of its driver, which comes with every such GPU."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

DRIVER = "EDGEPRESS_LIBCUDA"  # tests name their own
LIBRARY = "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
LONGEST_NAME = 256
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """compute_capability: CUDA's number, such as 8.6."""

    name: str
    compute_capability: str


@dataclass(frozen=True, kw_only=True)
class NoGpu:
    """why: in half a sentence."""

    why: str


def find() -> Gpu | NoGpu:
    """The first GPU, which is the one that TensorRT takes."""
    named = os.environ.get(DRIVER, LIBRARY)
    try:
        driver = ctypes.CDLL(named)
    except OSError:
        return NoGpu(why=f"the driver's library {LIBRARY} is not found")
    count, device = ctypes.c_int(), ctypes.c_int()
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code == NO_DEVICE or (code == 0 and count.value == 0):
        return NoGpu(why="the driver is installed and finds no device")
    name, numbers = ctypes.create_string_buffer(LONGEST_NAME), [ctypes.c_int(), ctypes.c_int()]
    code = (
        code
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, LONGEST_NAME, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(numbers[0]), MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(numbers[1]), MINOR, device)
    )
    if code != 0:
        return NoGpu(why=f"the driver fails with error {code} of CUDA")
    return Gpu(name=name.value.decode("utf-8", "replace"), compute_capability=f"{numbers[0].value}.{numbers[1].value}")
