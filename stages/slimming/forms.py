"""In which form the network would be shipped, and so be measured while it is pruned.

The budget binds what is shipped. Where a quantize stage follows, that is the INT8 network if it is faster: candidates
are then calibrated, exported and timed as INT8, so that what INT8 gains on this network and this device is measured
and not assumed, and widths are chosen at which INT8 kernels are fast. How well it was calibrated changes no time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from ...targets import cpu
from ..artifact import Context
from ..quantization.additions import with_faster_additions
from ..quantization.qat import calibration_images, scheme_for
from ..quantization.trial import write_int8, writer
from ..twins import takes_half_by_flag
from .bench import Form

CALIBRATION_IMAGES = 64
FLOAT: Final = "fp32"


def forms(context: Context, network: nn.Module, example: Tensor) -> Mapping[str, Form]:
    """Every form that the stages to come would make, the plain one first. network: that is to be pruned."""
    profile, later = context.profile, context.later
    write = writer(context, example)
    found = {FLOAT: Form(name=FLOAT, write=write)}
    if profile.runtime == "tensorrt" and "fp16" in profile.precisions:
        found["fp16"] = Form(name="fp16", write=partial(write, half=not takes_half_by_flag(profile)))
    if "bf16" in profile.precisions and _computes_in_bfloat16(context):
        found["bf16"] = Form(name="bf16", write=write)
    if "quantize" in later:
        images = calibration_images(context, CALIBRATION_IMAGES)
        plain = scheme_for(profile, exclude=tuple(getattr(later["quantize"], "exclude", ())))
        scheme = with_faster_additions(network, plain, context, images).scheme
        found["int8"] = Form(
            name="int8", write=partial(write_int8, scheme=scheme, images=images, write=write, context=context)
        )
    return found


def _computes_in_bfloat16(context: Context) -> bool:
    """The CPU that candidates are timed on, here or on the board."""
    if context.boards:
        return not cpu.BFLOAT_UNITS.isdisjoint(context.boards[0].facts.instruction_sets)
    return context.profile.where == "device" and cpu.has_bfloat16()


def bytes_of(form: Form, module: nn.Module, folder: Path, *, runtime: str) -> int:
    """What a network takes on disk as it is shipped; an OpenVINO IR is two files."""
    path = folder / f"{form.name}.onnx"
    form.write(module, path)
    if runtime != "openvino":
        return path.stat().st_size
    from ...targets.ov import save_ir

    xml = path.with_suffix(".xml")
    save_ir(path, xml)
    return xml.stat().st_size + xml.with_suffix(".bin").stat().st_size
