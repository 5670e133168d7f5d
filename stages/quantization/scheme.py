"""Which numbers an INT8 network may use, and where it is rounded to them. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

Flavour = Literal["trt", "openvino", "ort-u8"]
Grid = Literal["signed", "unsigned", "affine"]


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How one runtime wants its INT8 network.

    trt: signed and symmetric everywhere; inputs of weighted layers and the skip input of residual additions; nothing
    between convolution, batch norm and ReLU. openvino: the same places; unsigned where values cannot be negative,
    which is one more bit of resolution at the same speed. additions: whether the other operand of a residual addition
    is rounded as well, with which OpenVINO is faster on some CPUs and slower on others. ort-u8: unsigned on every
    edge, since ONNX Runtime fuses a convolution only when its output is rounded too, and drops a ReLU only before a
    zero point of 0.

    weight_bits: 7 on CPUs that add two 8-bit products in 16 bits and saturate (no VNNI).
    exclude: names of layers that stay in float. learned: scales are parameters and not those of observed ranges.
    """

    flavour: Flavour
    weight_bits: Literal[7, 8] = 8
    exclude: tuple[str, ...] = ()
    by_layer: bool = False  # each layer rounded by itself: the code between them cannot be followed
    float_weights: bool = False  # TensorRT 8 wants weights as float -> quantise -> dequantise
    learned: bool = False
    additions: Literal["skip", "both"] = "skip"

    @property
    def weight_limit(self) -> int:
        """Largest weight on the integer grid, either sign."""
        return 63 if self.weight_bits == 7 else 127

    @property
    def every_edge(self) -> bool:
        """Whether outputs are rounded too, and not only the inputs of weighted layers."""
        return self.flavour == "ort-u8"

    @property
    def whole_additions(self) -> bool:
        """Whether both operands of a residual addition are rounded."""
        return self.every_edge or self.additions == "both"

    @property
    def rounds_early(self) -> bool:
        """Whether roundings stand before pools and concatenations. TensorRT looks for them right before its layers."""
        return self.flavour != "trt"

    def grid(self, *, nonnegative: bool) -> Grid:
        """The grid of an activation. nonnegative: it comes out of a ReLU or the like."""
        if self.flavour == "trt":
            return "signed"
        if nonnegative:
            return "unsigned"
        return "signed" if self.flavour == "openvino" else "affine"
