"""Take out of each layer the mean error that its rounding makes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import RoundedLayer
from .prepare import rounded_layers
from .switching import set_rounding_


def correct_bias_(prepared: nn.Module, images: Tensor) -> int:
    """Shift biases so that each channel's mean on these images is the float network's; returns how many layers did.

    The layers are corrected in the order of computation, each with those before it corrected (Nagel et al., 2019,
    arXiv:1906.04721, section 4.2, with means that are observed). A layer without a bias or a batch norm is left alone.
    """
    layers = [layer for layer in rounded_layers(prepared).values() if _bias_of(layer) is not None]
    wanted = _float_means(prepared, layers, images)

    def correct(layer: nn.Module, _given: object, out: Tensor) -> Tensor:
        assert isinstance(layer, RoundedLayer)
        bias = _bias_of(layer)
        assert bias is not None
        error = wanted[layer] - _mean(layer, out)
        bias.add_(error)
        return out + error.reshape(_shape(layer, out))

    handles = [layer.register_forward_hook(correct) for layer in layers]
    with torch.no_grad():
        prepared.eval()(images)
    for handle in handles:
        handle.remove()
    return len(layers)


def _float_means(prepared: nn.Module, layers: list[RoundedLayer], images: Tensor) -> dict[nn.Module, Tensor]:
    found: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, _given: object, out: Tensor) -> None:
        assert isinstance(layer, RoundedLayer)
        found[layer] = _mean(layer, out)

    handles = [layer.register_forward_hook(keep) for layer in layers]
    set_rounding_(prepared, False)
    with torch.no_grad():
        prepared.eval()(images)
    set_rounding_(prepared, True)
    for handle in handles:
        handle.remove()
    return found


def _bias_of(layer: RoundedLayer) -> Tensor | None:
    return layer.layer.bias if layer.norm is None else layer.norm.bias


def _mean(layer: RoundedLayer, out: Tensor) -> Tensor:
    """Of each channel."""
    place = out.ndim - 1 if isinstance(layer.layer, nn.Linear) else 1
    return out.transpose(0, place).flatten(1).mean(dim=1)


def _shape(layer: RoundedLayer, out: Tensor) -> list[int]:
    place = out.ndim - 1 if isinstance(layer.layer, nn.Linear) else 1
    return [-1 if axis == place else 1 for axis in range(out.ndim)]
