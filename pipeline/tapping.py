"""`compress taps`: where a network can be tapped, and which taps of a student and a teacher belong together."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from ..stages.contract import Tokens
from ..stages.distill.losses import LOSSES, term_class
from ..stages.distill.nouns import Pair
from ..stages.distill.places import PLACES
from ..stages.distill.taps import Outline, outline, resolve
from ..stages.distill.watching import answer, still
from ..stages.models import unchecked
from ..stages.settings import ModelSettings
from ..stages.tasks import CLASSIFICATION, TASKS
from ..targets.errors import EdgepressError, RecipeError, StageError
from .progress import result_console

DIGITS = "1x8x8"
SAMPLES = 2


@dataclass(frozen=True, kw_only=True)
class _Network:
    """A network, and what was seen in it."""

    source: str
    module: nn.Module
    x: Tensor
    found: Outline

    def shape(self, tap: str) -> str:
        """What passes a tap, in words. StageError: it cannot be tapped."""
        with still(self.module):
            return shown(answer(self.module, self.x, [tap]).feats[tap].shape[1:])


def main(options: argparse.Namespace) -> int:
    """Print the taps of one or two networks, and what each place means in them."""
    x = example(options.input or DIGITS)
    if not options.classes.isdigit() or int(options.classes) < 1:
        raise RecipeError(f"--classes is a number of classes, not {options.classes!r}")
    model = _look(options.model, x, classes=int(options.classes), given=options.input is not None)
    student = None
    if options.student:
        student = _look(options.student, x, classes=int(options.classes), given=options.input is not None)
    if options.json:
        print(json.dumps(_facts(model, student), indent=2))
        return 0
    console = result_console()
    for role, network in (("student", student), ("teacher" if student else "model", model)):
        if network is not None:
            _print_taps(console, role, network)
    _print_places(console, model, student)
    return 0


def example(text: str) -> Tensor:
    """A few images of a shape such as `3x32x32`, or texts of a length such as `64`. RecipeError: it is neither."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*x[1-9]\d*)?", text):
        raise RecipeError(
            f"--input is the shape of one image, as 3x32x32, or the length of a text, as 64; not {text!r}"
        )
    shape = [int(side) for side in text.split("x")]
    if len(shape) == 1:
        return torch.arange(shape[0]).remainder(2).repeat(SAMPLES, 1)  # tokens 0 and 1: every vocabulary has them
    return torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(0))


def shown(shape: tuple[int, ...]) -> str:
    """`64x8x8`."""
    return "x".join(map(str, shape))


def _look(source: str, x: Tensor, *, classes: int, given: bool) -> _Network:
    tokens = Tokens(length=x.shape[1], vocabulary=2) if x.ndim == 2 else None
    task = TASKS["text"] if tokens else CLASSIFICATION
    module = unchecked(
        ModelSettings(source=source), classes=classes, shape=tuple(x.shape[1:]), task=task, tokens=tokens
    )
    try:
        found = outline(module, x)
    except EdgepressError:
        raise
    except Exception as error:  # whatever a network raises at a shape that it was not made for
        first = (str(error).splitlines() or [""])[0].rstrip(".")
        say = "Give another --input" if given else "Say with --input what it takes, such as 3x32x32, or 64 for a text"
        raise RecipeError(
            f"{source} fails on an input of {shown(tuple(x.shape[1:]))}: {type(error).__name__}: {first}. {say}."
        ) from error
    return _Network(source=source, module=module, x=x, found=found)


def _pairs(place: str, model: _Network, student: _Network | None) -> list[tuple[Pair, tuple[str, str]]]:
    """Each pair with the shapes that pass there; the first of a pair is the student's. StageError: there are none."""
    learner = student or model
    found = resolve(place, student=learner.found, teacher=model.found if student else None, loss="")
    return [((mine, theirs), (learner.shape(mine), model.shape(theirs) if theirs else "")) for mine, theirs in found]


def _places(model: _Network, student: _Network | None) -> Iterator[tuple[str, list[tuple[Pair, tuple[str, str]]], str]]:
    """Each place, its pairs, and why there are none."""
    for place in PLACES:
        try:
            yield place, _pairs(place, model, student), ""
        except StageError as error:
            reason = str(error).removeprefix("the loss : ").removeprefix(f"{place}: ")
            yield place, [], reason if student else reason.replace("the student", "the model")


def _users() -> dict[str, list[str]]:
    """Names of the losses that look at each place unless told otherwise."""
    users: dict[str, list[str]] = {place: [] for place in PLACES}
    for name in LOSSES:
        place = (term_class(name).place or "").partition("#")[0]
        if place in users:
            users[place].append(name)
    return users


def _facts(model: _Network, student: _Network | None) -> dict[str, object]:
    networks = {"model": model, **({"student": student} if student else {})}
    return {
        **{
            role: {
                "source": network.source,
                "taps": [{"name": tap.name, "kind": tap.kind, "shape": tap.shape} for tap in network.found],
            }
            for role, network in networks.items()
        },
        "places": {
            place: {"pairs": [list(pair) if student else [pair[0]] for pair, _ in pairs], "none": reason or None}
            for place, pairs, reason in _places(model, student)
        },
    }


def _print_taps(console: Console, role: str, network: _Network) -> None:
    table = Table(title=f"{role}: {network.source}", title_justify="left")
    for column in ("tap", "module", "shape"):
        table.add_column(column, overflow="fold")
    for tap in network.found:
        table.add_row(tap.name or "(its answer)", tap.kind, shown(tap.shape))
    console.print(table)


def _print_places(console: Console, model: _Network, student: _Network | None) -> None:
    table = Table(title="places", title_justify="left")
    users = _users()
    for column in ("place", "used by", "student", "teacher") if student else ("place", "used by", "tap"):
        table.add_column(column, overflow="fold")
    for place, pairs, reason in _places(model, student):
        said = [f"{place}\n[dim]{PLACES[place].what}[/dim]", ", ".join(users[place])]
        if not pairs:
            table.add_row(*said, f"[dim]{escape(reason)}[/dim]")
        else:
            sides = zip(
                *(
                    [f"{escape(tap)}  [dim]{shape}[/dim]" for tap, shape in zip(*pair, strict=True) if tap]
                    for pair in pairs
                ),
                strict=True,
            )
            table.add_row(*said, *("\n".join(side) for side in sides))
        table.add_section()
    console.print(table)
