"""A profile: what one kind of device can do, read from YAML and checked."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import RecipeError, did_you_mean
from .remote.address import Address

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C: `compress targets` reads every profile
Precision = Literal["fp32", "fp16", "bf16", "int8"]
# Maxwell, Pascal's first and Tegra's: no dot products of bytes (DP4A). github.com/NVIDIA/TensorRT/issues/3399
NO_INT8 = frozenset({"5.0", "5.2", "5.3", "6.0", "6.2"})
StageName = Literal["train", "distill", "prune", "quantize", "export", "profile"]


class Budget(BaseModel):
    """What the result may cost. A limit that is absent does not bind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_ms: Annotated[float, Field(gt=0)] | None = Field(
        None, description="median latency of one inference, at most, in milliseconds"
    )
    speedup: Annotated[float, Field(gt=0)] | None = Field(
        None, description="ratio of the baseline's median latency to the chosen variant's, at least"
    )
    accuracy: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, description="accuracy in the runtime, at least, in per cent"
    )
    accuracy_drop: Annotated[float, Field(ge=0, le=100)] | None = Field(
        None, description="points of accuracy below the baseline, at most"
    )
    memory_mb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="peak resident memory of a process that runs the model, at most, in MiB"
    )
    size_mb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="size of the exported file, at most, in MiB"
    )

    def limits(self) -> dict[str, float]:
        """The limits that bind, by name."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class Profile(BaseModel):
    """One kind of device: its runtime, what its hardware can do, and how to measure on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="what --target calls it; equals the file's name")
    board: str = Field(description="the hardware, as its maker calls it")
    runtime: Literal["onnxruntime", "openvino", "tensorrt"] = Field(description="what runs the model there")
    runtime_version: str | None = Field(None, description="the version there; none: the one that is installed")
    jetpack: tuple[str, ...] = Field((), description="releases of NVIDIA's JetPack that carry that version")
    compute_capability: str | None = Field(
        None, pattern=r"^\d+\.\d$", description="of an NVIDIA GPU: below 6.1, and in 6.2, there is no INT8"
    )
    precisions: tuple[Precision, ...] = Field(description="what the hardware computes in, slowest first")
    qdq: Literal["none", "trt", "openvino", "ort-u8"] = Field(
        description="where quantise and dequantise nodes go, and their grid; none where there is no INT8"
    )
    weight_bits: Literal[7, 8, "auto"] = Field(
        8, description="7 where 8-bit products saturate; auto: decided by the instruction sets of this CPU"
    )
    int8_layers: float = Field(
        0.9, ge=0, le=1, description="share of the quantised layers that the runtime really runs in INT8, at least"
    )
    opset: int = Field(ge=9, le=24, description="ONNX operator set of the exported file")
    channel_multiple: int = Field(8, ge=1, description="pruned layers keep a multiple of this many channels")
    memory_mb: int | None = Field(None, gt=0, description="memory that a model may use there, in MiB")
    peak_gmacs: dict[Precision, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="multiply-accumulates a second, 10^9, dense, by precision; for estimates"
    )
    bandwidth_gb_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of the memory, 10^9 bytes a second, as its maker says; for estimates"
    )
    device: str = Field(
        pattern=r"^(local|none|carried|ssh://.*)$",
        description="local: this machine is the device; ssh://user@host: a board; carried: results of a bundle that "
        "ran there; none: there is no way to reach it from here",
    )
    stand_in: Literal["onnxruntime", "openvino"] | None = Field(
        None, description="runtime on this machine for figures when the device cannot be reached"
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="environment variables of the process that measures"
    )
    threads: int = Field(1, ge=1, description="threads of the steady comparison, pinned")
    batch: int = Field(1, ge=1, description="samples of one call for throughput, where the model's batch is open")
    trtexec: dict[str, int | str | bool] = Field(default_factory=dict, description="settings of the TensorRT builder")
    budget: Budget = Field(default_factory=Budget, description="default budget")
    stages: tuple[StageName, ...] = Field(
        ("distill", "prune", "quantize", "export", "profile"), description="default stages"
    )

    @field_validator("device")
    @classmethod
    def _is_an_address(cls, device: str) -> str:
        if device.startswith("ssh://"):
            try:
                Address.parse(device)
            except RecipeError as error:
                raise ValueError(str(error)) from None
        return device

    @model_validator(mode="after")
    def _fits_together(self) -> "Profile":
        if ("int8" in self.precisions) != (self.qdq != "none"):
            raise ValueError(
                "qdq and precisions disagree: list int8 and a qdq flavour, or neither "
                f"(precisions: {', '.join(self.precisions)}; qdq: {self.qdq})"
            )
        if self.runtime == "tensorrt" and self.runtime_version is None:
            raise ValueError("a TensorRT profile needs runtime_version: flags and operators depend on it")
        if "int8" in self.precisions and self.compute_capability in NO_INT8:
            raise ValueError(
                f"a GPU of compute capability {self.compute_capability} has no INT8 units and TensorRT refuses Q/DQ "
                "there: leave int8 out of precisions, and write qdq: none"
            )
        typed = self.runtime == "tensorrt" and int((self.runtime_version or "0").split(".")[0]) >= 11
        if typed and {"fp16", "int8"} <= set(self.precisions) and self.opset < 19:
            raise ValueError("from TensorRT 11 on, INT8 with FP16 around it needs opset 19 or newer")
        if self.device == "none" and self.stand_in is None:
            raise ValueError("a device that cannot be reached needs a stand_in runtime for figures here")
        return self

    @property
    def measures_with(self) -> str:
        """The runtime that figures come from."""
        return (self.stand_in or self.runtime) if self.device == "none" else self.runtime

    @property
    def is_remote(self) -> bool:
        """Is it measured on a board over ssh?"""
        return self.device.startswith("ssh://")

    @property
    def where(self) -> Literal["device", "stand-in"]:
        """What a figure that is measured means for this profile."""
        return "stand-in" if self.device == "none" else "device"


def names() -> tuple[str, ...]:
    """Every profile that is shipped, in alphabetical order."""
    return tuple(sorted(path.name.removesuffix(".yaml") for path in _shipped()))


def load(name: str) -> Profile:
    """The profile of that name, or of that YAML file.

    RecipeError: there is none, or it does not hold; with every problem in one message.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise RecipeError(f"no profile file {name}")
        return parse(path.read_text(encoding="utf-8"), origin=name)
    for path in _shipped():
        if path.name == f"{name}.yaml":
            return parse(path.read_text(encoding="utf-8"), origin=f"profile {name}")
    raise RecipeError(
        f"no profile {name!r}{did_you_mean(name, names())}. `compress targets` shows them all; "
        "a path that ends in .yaml is read as a profile of your own."
    )


def parse(text: str, *, origin: str) -> Profile:
    """Read a profile's YAML; `origin` is how errors call it."""
    try:
        values: Any = yaml.load(text, Loader=LOADER)
        return Profile.model_validate(values)
    except yaml.YAMLError as error:
        raise RecipeError(f"{origin} is not YAML: {error}") from None
    except ValidationError as error:
        problems = [
            f"  {'.'.join(str(part) for part in problem['loc']) or 'the file'}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise RecipeError("\n".join([f"{origin} does not hold:", *problems])) from None


def _shipped() -> Iterator[Any]:
    folder = resources.files("edgepress") / "profiles"
    return (path for path in folder.iterdir() if path.name.endswith(".yaml"))
