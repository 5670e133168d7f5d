"""Every loss of distillation: whose it is, what it needs, its options, and how a recipe asks for it."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from rich.table import Table

from ..stages.distill.losses import LOSSES, defaults, term_class
from .progress import result_console

if TYPE_CHECKING:
    from ..stages.distill.nouns import Term

NAME = r"(?:van den |van der |van |de )?[A-Z][\w'’-]+"
PAPER = re.compile(
    rf"(?P<who>{NAME}(?:, {NAME})*(?: (?:&|and) {NAME}| et al\.)?, (?:19|20)\d\d)(?: \((?P<where>[^)]*)\))?"
)
WEIGHT = re.compile(r"(?:[Uu]sual|[Pp]ublished) weight: ([\d.]+(?:e-?\d+)?)")
NEEDS = {
    "labels": "labels",
    "teacher": "teacher",
    "teachers": "two teachers",
    "index": "index",
    "mask": "mask",
    "view": "second view",
    "classmate": "classmate",
}  # what `models` means is nobody's business: they are always there
FAMILIES: dict[str, tuple[str, ...]] = {
    "Labels": ("supervised",),
    "Answers": (
        "response",
        "logits",
        "decoupled",
        "temperature",
        "classes",
        "virtual",
        "specialists",
        "scales",
        "blockwise",
        "embeddings",
    ),
    "Features and attention": (
        "features",
        "boundaries",
        "attention",
        "flow",
        "fusion",
        "generation",
        "reuse",
        "spots",
        "classwise",
    ),
    "Relations and contrast": ("relation", "contrastive", "transport"),
    "Dense prediction": ("dense", "detection"),
    "Language": ("language", "selfattention"),
    "Without a teacher, or with itself": ("selfteaching", "exits"),
    "Several teachers": ("weighing",),
    "Adversarial and robust": ("adversarial", "robust"),
}  # by the modules of stages/distill


@dataclass(frozen=True, kw_only=True)
class Method:
    """One loss as its class describes itself.

    paper: None where it is nobody's, such as cross-entropy. taps: where features come from unless a recipe names
    taps; None: it looks at answers alone. options: with defaults; `required` ones have none. choices: what an option
    may be, where there is a list.
    """

    name: str
    formula: str
    paper: str | None
    needs: tuple[str, ...]
    taps: str | None
    options: dict[str, Any]
    required: tuple[str, ...]
    choices: dict[str, tuple[Any, ...]]
    text: str
    example: str


def method(name: str) -> Method:
    """What there is to know about a loss. RecipeError: there is none of that name."""
    found = term_class(name)
    text = inspect.cleandoc(found.__doc__ or "")
    known = defaults(name)
    required = tuple(key for key, value in known.items() if value is inspect.Parameter.empty)
    options = {key: None if key in required else _plain(value) for key, value in known.items()}
    return Method(
        name=name,
        formula=" ".join(text.split("\n\n")[0].split()),
        paper=paper(text),
        needs=tuple(word for need, word in NEEDS.items() if need in _needs(found)),
        taps=found.place,
        options=options,
        required=required,
        choices=_choices(found),
        text=text,
        example=_example(name, text, options, required),
    )


def _needs(found: type[Term]) -> frozenset[str]:
    """Two teachers are one as well."""
    return found.needs - {"teacher"} if "teachers" in found.needs else found.needs


def paper(text: str) -> str | None:
    """The first work that a docstring cites: `Hinton et al., 2015 (arXiv:1503.02531)`."""
    found = PAPER.search(" ".join(text.split()))
    if found is None:
        return None
    where = found["where"].split(", ")[-1] if found["where"] else None  # the method's own name may come first
    return f"{found['who']} ({where})" if where else found["who"]


def list_methods(*, as_json: bool) -> int:
    """Print every loss."""
    if as_json:
        print(json.dumps([asdict(method(name)) for name in LOSSES], indent=2))
        return 0
    table = Table(box=None, pad_edge=False)
    for column in ("loss", "paper", "needs", "taps"):
        table.add_column(column, overflow="fold")
    for family, names in by_family().items():
        table.add_row()
        table.add_row(f"[bold]{family}[/bold]")
        for found in map(method, names):
            table.add_row(found.name, found.paper or "", ", ".join(found.needs), found.taps or "")
    console = result_console()
    console.print(table)
    console.print(
        f"\n{len(LOSSES)} losses. `compress losses NAME` explains one, its options, and how a recipe asks for it",
        highlight=False,
    )
    return 0


def by_family() -> dict[str, list[str]]:
    """The names of all losses under the headings of FAMILIES."""
    modules = {name: where.partition(":")[0] for name, where in LOSSES.items()}
    found = {family: [name for name in LOSSES if modules[name] in members] for family, members in FAMILIES.items()}
    found["Labels"].insert(0, "ce")
    found["Answers"].remove("ce")
    return found


def explain(name: str, *, as_json: bool) -> int:
    """Print one loss. RecipeError: there is none of that name."""
    found = method(name)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return 0
    lines = [f"{name}: {found.text}", ""]
    lines.append(f"needs    {', '.join(found.needs) or 'nothing but samples'}")
    if found.taps is not None:
        lines.append(f"taps     {found.taps} (`compress taps MODEL` shows what that is in a model)")
    for key, value in found.options.items():
        default = "must be given" if key in found.required else f"default {_word(value)}"
        choices = f": {' | '.join(_word(choice) for choice in found.choices[key])}" if key in found.choices else ""
        lines.append(f"option   {key}{choices} ({default})")
    lines.append("also     weight, ramp and taps, as every loss")
    lines += ["", found.example]
    result_console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    return 0


def _example(name: str, text: str, options: dict[str, Any], required: tuple[str, ...]) -> str:
    """A line of YAML; the usual weight where the docstring tells one."""
    told = WEIGHT.search(" ".join(text.split()))
    weight = float(told[1].rstrip(".")) if told else 1.0
    settings: Any = {
        "weight": _short(weight),
        **{key: "..." if key in required else value for key, value in options.items()},
    }
    losses = {name: settings if options else settings["weight"]}
    if name != "ce":
        losses = {"ce": 1, **losses}
    line = yaml.safe_dump({"distill": {"loss": losses}}, default_flow_style=True, sort_keys=False, width=10_000)
    return line.strip().removeprefix("{").removesuffix("}")


def _choices(found: type[Any]) -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(found.__init__)
    listed = {}
    for key, hint in hints.items():
        kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
        if kinds:
            listed[key] = tuple(choice for kind in kinds for choice in get_args(kind))
    return listed


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return _short(value) if isinstance(value, float) else value


def _short(value: float) -> float:
    """1 for 1.0, and no more digits than say something."""
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _word(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return f"[{', '.join(_word(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
