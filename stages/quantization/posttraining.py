"""Quantise a network without training it: whichever ranges and corrections give the smallest measured error."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..comparison import sqnr_db
from .bias import correct_bias_
from .damage import answers, damage
from .equalise import equalise_
from .layers import ActivationRounding
from .learned import LearnedRounding
from .prepare import prepare, rounded_layers, rounding_before, roundings
from .ranges import ESTIMATORS, Estimator, keep_values, set_ranges_
from .scheme import Scheme
from .switching import set_rounding_

CHECK_SHARE = 0.25  # of the samples: they judge, and no range is observed on them
ENOUGH_BETTER = 0.98  # a change is kept where the error falls to this or below: less is chance
CORRECTED_ON = 128  # samples whose means correct the biases
BATCH = 64
TRACED_DB = 40.0  # of the traced network's answers, nothing rounded: folded batch norms alone leave more than 80


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A network that rounds, and what was tried.

    plain: the same before biases were corrected: a layer that goes back to float must not keep a correction of errors
    that it no longer makes. errors: by what was tried, of the answers on samples held apart.
    """

    module: nn.Module
    plain: nn.Module
    scheme: Scheme
    estimator: Estimator
    errors: dict[str, float] = field(default_factory=dict)
    equalised: int = 0  # pairs of layers
    corrected: int = 0  # layers

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "ranges": self.estimator,
            "errors": self.errors,
            "equalised_pairs": self.equalised,
            "corrected_biases": self.corrected,
        }


def calibrate(module: nn.Module, scheme: Scheme, batches: Sequence[Tensor], *, are_classes: bool) -> Calibrated:
    """Round a copy of a float network by the best of several ranges; even out channels and biases where that helps.

    batches: calibration samples. are_classes: the answers are scores of classes, (n, classes). Scales that are to be
    learned are observed as all others are: training makes parameters of them.
    """
    scheme = replace(scheme, learned=False)
    seen, held = _divide(batches)
    wanted = answers(module, held)

    def error(candidate: nn.Module) -> float:
        return damage(answers(candidate, held), wanted, are_classes=are_classes).loss

    prepared, scheme = _prepared(module, scheme, held[0], wanted[: len(held[0])])
    estimator, errors = _best_ranges_(prepared, seen, error)
    found = Calibrated(module=prepared, plain=prepared, scheme=scheme, estimator=estimator, errors=errors)
    found = _equalised(found, seen, error)
    return _corrected(found, seen, error)


def _prepared(module: nn.Module, scheme: Scheme, images: Tensor, wanted: Tensor) -> tuple[nn.Module, Scheme]:
    """The network with its roundings; layer by layer where what was traced is not what the network computes."""
    if not scheme.by_layer:
        try:
            prepared = prepare(module, scheme).eval()
            set_rounding_(prepared, False)
            told = sqnr_db(answers(prepared, [images]).numpy(), wanted.numpy())
            set_rounding_(prepared, True)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
            told = float("-inf")
        if told > TRACED_DB:
            return prepared, scheme
    alone = replace(scheme, by_layer=True)
    return prepare(module, alone).eval(), alone


def _best_ranges_(prepared: nn.Module, seen: Sequence[Tensor], error: Any) -> tuple[Estimator, dict[str, float]]:
    values = keep_values(prepared, seen)
    errors: dict[Estimator, float] = {}
    for name in ESTIMATORS:
        set_ranges_(values, name)
        errors[name] = error(prepared)
    # min-max, the simplest, unless another is clearly better
    best = min(errors, key=lambda name: errors[name])
    if errors[best] > ENOUGH_BETTER * errors["min-max"]:
        best = "min-max"
    set_ranges_(values, best)
    return best, {f"ranges {name}": value for name, value in errors.items()}


def _equalised(found: Calibrated, seen: Sequence[Tensor], error: Any) -> Calibrated:
    candidate = copy.deepcopy(found.module)
    pairs = equalise_(candidate)
    if not pairs:
        return found
    set_ranges_(keep_values(candidate, seen), found.estimator)
    value = error(candidate)
    errors = {**found.errors, "equalised": value}
    if value > ENOUGH_BETTER * found.errors[f"ranges {found.estimator}"]:
        return replace(found, errors=errors)
    return replace(found, module=candidate, plain=candidate, errors=errors, equalised=pairs)


def _corrected(found: Calibrated, seen: Sequence[Tensor], error: Any) -> Calibrated:
    candidate = copy.deepcopy(found.module)  # always: the module may be trained, and the plain one stays as it is
    found = replace(found, module=copy.deepcopy(found.module))
    layers = correct_bias_(candidate, torch.cat(list(seen))[:CORRECTED_ON])
    if not layers:
        return found
    value = error(candidate)
    errors = {**found.errors, "bias corrected": value}
    before = found.errors["equalised" if found.equalised else f"ranges {found.estimator}"]
    kept = value <= ENOUGH_BETTER * before
    if not kept:
        return replace(found, errors=errors)
    return replace(found, module=candidate, errors=errors, corrected=layers)


def with_floats(
    module: nn.Module, scheme: Scheme, known: nn.Module, batches: Sequence[Tensor], *, estimator: Estimator
) -> nn.Module:
    """`module` rounded by a scheme that leaves more layers in float; ranges that `known` has stay as they are.

    module: a float network, with the weights that `known` rounds.
    """
    prepared = prepare(module, scheme).eval()
    new = _copy_ranges_(known, prepared)
    if new:  # places that were inside a fused layer before
        values = keep_values(prepared, batches)
        set_ranges_({part: seen for part, seen in values.items() if part in new}, estimator)
    return prepared


def _copy_ranges_(known: nn.Module, prepared: nn.Module) -> set[ActivationRounding]:
    """Take over the ranges of roundings by their names; returns those that found none."""
    ranges = {name: part for name, part in known.named_modules() if isinstance(part, ActivationRounding)}
    new = set(roundings(prepared))
    for name, part in prepared.named_modules():
        if isinstance(part, ActivationRounding) and name in ranges:
            low, high = _range_of(ranges[name])
            part.low.copy_(low)
            part.high.copy_(high)
            new.discard(part)
    return new


def _range_of(rounding: ActivationRounding) -> tuple[Tensor, Tensor]:
    """What was observed, or what a scale that was learned covers."""
    if not isinstance(rounding, LearnedRounding):
        return rounding.low, rounding.high
    scale, zero_point = rounding.scale_and_zero_point()
    least = -127 if rounding.grid == "signed" else 0  # one step less on that side: the grid is symmetric
    return (least - zero_point) * scale, (rounding.limits[1] - zero_point) * scale


def only_(prepared: nn.Module, name: str | None) -> None:
    """Round one layer, its weights and what it is given, and nothing else; None: nothing at all."""
    before = rounding_before(prepared)
    for part in roundings(prepared):
        part.rounding = part is before.get(name or "")
    for layer_name, layer in rounded_layers(prepared).items():
        layer.rounding = layer_name == name


def _divide(batches: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Samples to observe ranges on, and samples to judge them by; the same ones where there is one alone."""
    every = torch.cat(list(batches))
    held = round(CHECK_SHARE * len(every))
    if held == 0:
        return [every], [every]
    return list(torch.split(every[held:], BATCH)), list(torch.split(every[:held], BATCH))
