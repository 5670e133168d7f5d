"""What kind of board answers: module, JetPack and GPU, from the facts that its probe tells."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DeviceError
from ..jetson import linux_for_tegra
from ..tensorrt_tool.log import version_of

# L4T -> JetPack. Sources: the release notes of each JetPack, as collected by jetson_stats and jetson-containers.
JETPACKS = {
    "32.6.1": "4.6", "32.7.1": "4.6.1", "32.7.2": "4.6.2", "32.7.3": "4.6.3", "32.7.4": "4.6.4", "32.7.5": "4.6.5",
    "32.7.6": "4.6.6", "35.1": "5.0.2", "35.1.0": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1", "35.4.1": "5.1.2",
    "35.5.0": "5.1.3", "35.6.0": "5.1.4", "35.6.1": "5.1.5", "35.6.2": "5.1.6", "36.2.0": "6.0 DP", "36.3.0": "6.0",
    "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1", "36.4.7": "6.2.1", "36.5.0": "6.2.2", "38.2.0": "7.0",
    "38.2.1": "7.0", "38.4.0": "7.1", "39.2.0": "7.2",
}  # fmt: skip
# The system-on-chip in the device tree -> what CUDA calls its GPU.
GPUS = {"tegra210": "5.3", "tegra186": "6.2", "tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0"}
WITHOUT_INT8 = ("5.3", "6.2")

Word = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=0, lt=2**40)]


class BoardFacts(BaseModel):
    """The probe's answer, checked: it comes from another machine and is only data."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    model: Word | None = None
    compatible: Annotated[list[Word], Field(max_length=64)] = []
    nv_tegra_release: Word | None = None
    machine: Word = ""
    kernel: Word = ""
    python: Word
    cpu: Word | None = None
    cpu_flags: Word = ""
    cpus: Count = 1
    memory_mb: Count = 0
    available_mb: Count = 0
    swap_mb: Count = 0
    disk_free_mb: Count = 0
    home: Word
    boot_id: Word
    trtexec: Word | None = None
    tensorrt_code: Annotated[str, Field(pattern=r"^\d{4,7}$")] | None = None
    cuda: Word | None = None
    runtimes: Annotated[dict[Word, Word], Field(max_length=16)] = {}
    power_mode: Word | None = None
    clocks: Annotated[dict[Word, Any], Field(max_length=16)] = {}
    temperatures_c: Annotated[dict[Word, float], Field(max_length=64)] = {}
    has_sudo: bool = False
    load: float = 0.0

    @property
    def instruction_sets(self) -> frozenset[str]:
        return frozenset(self.cpu_flags.split())

    @property
    def l4t(self) -> str | None:
        return linux_for_tegra(self.nv_tegra_release) if self.nv_tegra_release else None

    @property
    def jetpack(self) -> str | None:
        return JETPACKS.get(self.l4t or "")

    @property
    def tensorrt(self) -> str | None:
        """TensorRT's version, of its tool or of its Python package."""
        return version_of(self.tensorrt_code) or self.runtimes.get("tensorrt")

    @property
    def gpu(self) -> str | None:
        """CUDA's number of the GPU, such as 5.3; None on other boards."""
        words = " ".join(self.compatible)
        return next((gpu for chip, gpu in GPUS.items() if re.search(rf"\b{chip}\b", words)), None)

    @property
    def has_int8(self) -> bool | None:
        """None: not a Jetson that we know."""
        return None if self.gpu is None else self.gpu not in WITHOUT_INT8

    @property
    def clocks_held(self) -> bool | None:
        """Is the GPU (or the CPU, on other boards) held at its maximum? None: the system does not tell."""
        for unit in ("gpu", "cpu"):
            values = self.clocks.get(unit)
            if isinstance(values, list) and len(values) == 3 and all(isinstance(one, (int, float)) for one in values):
                return bool(values[1] == values[2])
        return None


def facts_of(answer: Any, *, device: str) -> BoardFacts:
    """DeviceError: the board's answer is not what its probe says."""
    try:
        return BoardFacts.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DeviceError(f"{device}: the board's answer cannot be read ({where}: {first['msg']})") from None
