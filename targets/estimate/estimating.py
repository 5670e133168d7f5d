"""An interval for the latency of an ONNX file on a board: estimated, not measured, and never enough for a budget."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ..errors import StageError
from ..profiles import Profile
from .kernels import kernels
from .roofline import Efficiency, Load

Units = Literal["cuda cores", "tensor cores"]
WITHOUT_TENSOR_CORES = frozenset({"5.3", "6.2"})
TF32_SINCE = 8.0  # compute capability: FP32 convolutions run on tensor cores, rounded to TF32
LEVEL = 0.9
Share = Annotated[float, Field(gt=0)]


class Constants(BaseModel):
    """Of one kind of unit, as `benchmarks/estimator.py --write` fits them. factor: of the 90 % interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arithmetic: dict[str, Share]
    bandwidth: Share
    launch_us: Share
    base_ms: Share
    factor: Annotated[float, Field(gt=1)]
    rows: int
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Milliseconds of one inference. low, high: an interval that held nine in ten published latencies of networks that
    the calibration had not seen. basis: what it rests on."""

    ms: float
    low_ms: float
    high_ms: float
    precision: str
    basis: str


def units(profile: Profile, precision: str) -> Units:
    """What computes there in that precision."""
    is_old = precision == "fp32" and float(profile.compute_capability or 0) < TF32_SINCE
    plain = is_old or profile.compute_capability in WITHOUT_TENSOR_CORES
    return "cuda cores" if plain else "tensor cores"


def why_not(profile: Profile, precision: str) -> str | None:
    """Why there is no estimate; None: there is one."""
    if profile.runtime != "tensorrt":
        return f"estimates are calibrated for TensorRT on Jetson boards, and {profile.name} runs {profile.runtime}"
    if precision not in profile.peak_gmacs or profile.bandwidth_gb_s is None:
        return f"profile {profile.name} does not say its peak_gmacs in {precision} and its bandwidth_gb_s"
    return None


def estimate(path: Path, *, profile: Profile, precision: str) -> Estimate:
    """Of one inference with a batch of 1. StageError: there is none for such a board."""
    import onnx

    reason = why_not(profile, precision)
    if reason is not None:
        raise StageError(f"no estimate: {reason}")
    assert profile.bandwidth_gb_s is not None
    known = constants()[units(profile, precision)]
    efficiency = Efficiency(
        arithmetic=known.arithmetic, bandwidth=known.bandwidth, launch_us=known.launch_us, base_ms=known.base_ms
    )
    ms = Load(kernels(onnx.load(str(path)))).milliseconds(
        efficiency,
        precision=precision,
        peak_gmacs={str(kind): peak for kind, peak in profile.peak_gmacs.items()}[precision],
        bandwidth_gb_s=profile.bandwidth_gb_s,
    )
    basis = f"a roofline by layer, calibrated on {known.rows} published latencies of {units(profile, precision)}"
    return Estimate(ms=ms, low_ms=ms / known.factor, high_ms=ms * known.factor, precision=precision, basis=basis)


@functools.cache
def constants() -> dict[str, Constants]:
    """What the package ships, by kind of unit."""
    text = (resources.files(__package__ or "") / "constants.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return {name: Constants.model_validate(entry) for name, entry in values.items()}
