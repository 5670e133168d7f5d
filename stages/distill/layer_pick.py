"""Begin a smaller student with layers of its teacher, evenly picked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...targets.errors import StageError

Shapes = list[torch.Size]


def evenly(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """Which of the teacher's layers a student begins with, the first and the last among them.

    6 of 12 are 0, 2, 4, 7, 9, 11: the choice of DistilBERT's own scripts (Sanh et al., 2019, arXiv:1910.01108). A
    single layer is the first. StageError: the student has more layers than the teacher.
    """
    if student_layers > teacher_layers:
        raise StageError(f"the student has {student_layers} layers and the teacher only {teacher_layers} to pick from")
    if student_layers == 1:
        return (0,)
    return tuple(round(place * (teacher_layers - 1) / (student_layers - 1)) for place in range(student_layers))


def pick_layers_(teacher: nn.Module, student: nn.Module, *, layers: Sequence[int] | None = None) -> None:
    """Copy the teacher's weights into the student: some of its layers, and all that is not a layer.

    The layers are the longest list of modules of one kind in either network. Inside them weights are matched by name,
    or, between families such as BERT and DistilBERT, in order. Outside them they are matched by name, also without its
    first part (`bert.embeddings` is `distilbert.embeddings`), where the shapes agree; the rest of the student stays as
    it is. layers: the teacher's layers to take, from 0; none: evenly. StageError: there are no layers, or they do not
    fit.
    """
    (here, mine), (there, theirs) = layers_of(student, "student"), layers_of(teacher, "teacher")
    chosen = tuple(layers) if layers is not None else evenly(len(theirs), len(mine))
    if len(chosen) != len(mine) or any(not 0 <= layer < len(theirs) for layer in chosen):
        raise StageError(
            f"layers is {list(chosen)}: name {len(mine)} of the teacher's layers, one for each of the student's, "
            f"from 0 to {len(theirs) - 1}"
        )
    pairs = [
        pair
        for layer, picked in zip(mine, chosen, strict=True)
        for pair in _in_layer(layer, theirs[picked], f"{there}.{picked}")
    ]
    pairs += _outside(student, here, teacher, there)
    with torch.no_grad():
        for target, source in pairs:
            target.copy_(source)


def layers_of(network: nn.Module, whose: str) -> tuple[str, list[nn.Module]]:
    """The name of the list of layers, and the layers. StageError: there is none."""
    found: list[tuple[int, str, list[nn.Module]]] = []
    for name, module in network.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or not name:
            continue
        layers = list(module)
        if layers and len({type(layer) for layer in layers}) == 1 and len({str(_shapes(one)) for one in layers}) == 1:
            found.append((sum(shape.numel() for one in layers for shape in _shapes(one)), name, layers))
    if not found or max(found, key=lambda one: one[0])[0] == 0:
        raise StageError(
            f"the {whose} has no list of layers of one kind, a ModuleList or a Sequential, that could be picked from"
        )
    _, name, layers = max(found, key=lambda one: one[0])
    return name, layers


def _shapes(module: nn.Module) -> Shapes:
    return [value.shape for value in module.state_dict().values()]


def _in_layer(mine: nn.Module, theirs: nn.Module, name: str) -> list[tuple[Tensor, Tensor]]:
    """What goes where in one layer."""
    targets, sources = mine.state_dict(keep_vars=True), theirs.state_dict()
    if targets.keys() == sources.keys():
        for key, target in targets.items():
            if target.shape != sources[key].shape:
                _refuse(f"{name}.{key}", sources[key].shape, target.shape)
        return [(target, sources[key]) for key, target in targets.items()]
    if _shapes(mine) != _shapes(theirs):
        raise StageError(
            f"the layers do not match: {name} has {', '.join(sources)} and the student's {', '.join(targets)}. A "
            "student that begins with its teacher's layers needs layers of the same kind and width."
        )
    return list(zip(targets.values(), sources.values(), strict=True))


def _refuse(name: str, theirs: Sequence[int], mine: Sequence[int]) -> None:
    raise StageError(
        f"{name} is of the shape {tuple(theirs)} and the student has {tuple(mine)} there: layers can be picked only at "
        "equal width; begin with a student as wide as its teacher, or from random weights"
    )


def _outside(student: nn.Module, here: str, teacher: nn.Module, there: str) -> list[tuple[Tensor, Tensor]]:
    """What goes where outside the layers."""
    sources = {name: value for name, value in teacher.state_dict().items() if not name.startswith(f"{there}.")}
    short = {name.partition(".")[2]: value for name, value in sources.items() if "." in name}
    pairs = []
    for name, target in student.state_dict(keep_vars=True).items():
        if name.startswith(f"{here}."):
            continue
        for candidate in (sources.get(name), short.get(name.partition(".")[2] or name)):
            if candidate is not None and candidate.shape == target.shape:
                pairs.append((target, candidate))
                break
    return pairs
