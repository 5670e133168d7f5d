"""The trainings behind `distill_schemes.py`: each scheme beside its control, on the same images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from distill_families import KD
from distill_nets import big_cnn, small_cnn
from distill_runs import Room, tested
from torch import Tensor, nn

from edgepress.stages.distill.nouns import Batch, Out
from edgepress.stages.distill.robust import robust_logits
from edgepress.stages.distill.settings import Attack
from edgepress.stages.distill.weighing import confidence
from edgepress.stages.evaluation import accuracy, logits
from edgepress.stages.lesson import Lesson
from edgepress.stages.splits import InMemory, Split

OLD = (0, 1, 2, 3, 4)  # digits of the first task of learning without forgetting
ATTACK = Attack(epsilon=0.1, step_size=0.03, steps=5, objective="kl")
JUDGED = Attack(epsilon=0.1, step_size=0.02, steps=20, objective="ce")  # robust accuracy
ATTACKED_IMAGES = 1000
Figures = dict[str, float]
Runs = dict[str, Callable[[], Figures]]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The images and the schedule."""

    place: Room
    lesson: Lesson

    def big(self) -> nn.Module:
        return big_cnn(1)

    def small(self) -> nn.Module:
        return small_cnn(1)

    def teach(self, **changes: Any) -> Lesson:
        """The schedule with other losses or teachers."""
        if "loss" in changes:
            changes["loss"] = Lesson(loss=changes["loss"]).loss
        return replace(self.lesson, **changes)

    def teacher(self, name: str, seed: int, place: Room | None = None, **changes: Any) -> nn.Module:
        """A big network, trained once for each seed."""
        return (place or self.place).kept(name, self.big, self.teach(**changes), seed=seed)

    def student(
        self, name: str, seed: int, *, place: Room | None = None, options: dict[str, Any] | None = None, **changes: Any
    ) -> nn.Module:
        """A small network. options: of `teach`."""
        lesson = self.teach(**changes)
        return (place or self.place).train(name, self.small, lesson, seed=seed, **(options or {}))

    def test(self, net: nn.Module, **more: float) -> Figures:
        return {"test": tested(net, self.place.data), **more}


def several_teachers(bench: Bench, seed: int) -> Runs:
    """Two teachers that are right and one that was trained to call every digit by the next one's name."""

    def panel() -> dict[str, nn.Module]:
        train = bench.place.data.train
        assert train is not None
        liar = bench.place.with_data(
            train=Split(train.pixels, (train.labels() + 1) % 10, train.rows), fingerprint="labels moved by one"
        )
        return {
            "first": bench.teacher("good", seed),
            "second": bench.teacher("good", seed + 100),
            "bad": bench.teacher("bad", seed, place=liar),
        }

    def run(weigh: str) -> Figures:
        net = bench.student(f"teachers-{weigh}", seed, options={"teacher": panel()},
                            loss=KD, weigh=weigh, check_teacher=False)  # fmt: skip
        return bench.test(net)

    def share() -> Figures:
        """What the two good ones count together on average, per cent of the whole."""
        data = bench.place.data
        assert data.train is not None
        said = [Out(logits=logits(net, data.train, data.preprocessing)[0]) for net in panel().values()]
        blank = Batch(x=torch.zeros(len(data.train)), y=data.train.labels())
        return {"good share": 100 * float(confidence(said, blank)[:-1].sum(0).mean())}

    return {"alike": lambda: run("alike"), "confidence": lambda: run("confidence"), "shares": share}


def mutual(bench: Bench, seed: int) -> Runs:
    """Two small networks, each other's teachers; of two that learn alone the better on validation is taken too."""

    def together() -> Figures:
        torch.manual_seed(seed + 100)
        peer = bench.small()
        losses = {"ce": 1.0, "kd": {"weight": 1.0, "temperature": 1.0}}
        return bench.test(bench.student("mutual", seed, options={"teacher": None, "peers": [peer]}, loss=losses))

    def alone() -> Figures:
        data = bench.place.data
        nets = [bench.student("alone", one) for one in (seed, seed + 100)]
        return bench.test(max(nets, key=lambda net: accuracy(net, data.val, data.preprocessing)))

    return {"mutual": together, "alone": alone}


def own_teacher(bench: Bench, seed: int) -> Runs:
    """Exits on the stages that learn from the deepest one, and are gone afterwards."""
    return {
        "byot": lambda: bench.test(bench.student("byot", seed, loss={"ce": 1.0, "byot": 1.0})),
        "labels": lambda: bench.test(bench.student("labels", seed)),
    }


def robust(bench: Bench, seed: int) -> Runs:
    """A robust teacher's answers to clean images, learned on attacked ones; the control learns them on clean ones."""
    few = bench.place.data.test.subset(torch.arange(min(ATTACKED_IMAGES, len(bench.place.data.test))))

    def figures(net: nn.Module) -> Figures:
        answers, labels = robust_logits(net, few, JUDGED, bench.place.data.preprocessing, seed=0)
        return bench.test(net, robust=100 * float((answers.argmax(1) == labels).float().mean()))

    def teacher() -> nn.Module:
        return bench.teacher("robust", seed, attack=replace(ATTACK, objective="ce"))

    def run(name: str, attack: Attack | None) -> Figures:
        return figures(bench.student(name, seed, options={"teacher": teacher()}, loss=KD, attack=attack))

    return {"teacher": lambda: figures(teacher()), "ard": lambda: run("ard", ATTACK), "kd": lambda: run("kd", None)}


def half_images(bench: Bench, seed: int) -> Runs:
    """The student sees the left half of each digit; its teacher, while it teaches, sees all of it."""
    place = bench.place
    data = place.data
    assert data.train is not None
    half = replace(
        place, data=replace(data, train=_left(data.train, paired=True), val=_left(data.val), test=_left(data.test))
    )

    def run(name: str, **changes: Any) -> Figures:
        return {"test": tested(bench.student(name, seed, place=half, **changes), half.data)}

    def taught() -> Figures:
        return run("half-taught", options={"teacher": bench.teacher("good", seed)}, loss=KD)

    return {"half, taught": taught, "half, labels": lambda: run("half-labels")}


def _left(split: Split, *, paired: bool = False) -> Split:
    """The left half of every image. paired: with the whole one for the teacher."""
    whole = split.read(torch.arange(len(split)))
    left = whole.clone()
    left[..., whole.shape[-1] // 2 :] = 0
    return Split(InMemory(left), split.labels(), teacher_pixels=InMemory(whole) if paired else None)


def without_forgetting(bench: Bench, seed: int) -> Runs:
    """First 0 to 4, then 5 to 9 from images of these alone; a task is judged among its own digits, as in the paper."""
    new = tuple(digit for digit in range(10) if digit not in OLD)

    def first() -> nn.Module:
        return _task(bench.place, OLD).kept("first", bench.small, bench.lesson, seed=seed)

    def second(name: str, **changes: Any) -> Figures:
        start, place = first(), _task(bench.place, new)
        options = changes.pop("options", {"teacher": None})
        lesson = bench.teach(lr=bench.lesson.lr / 10, **changes)
        return _tasks(place.train(name, lambda: copy.deepcopy(start), lesson, seed=seed, **options), bench, new)

    kept = {"ce": 1.0, "kd": {"weight": 1.0, "temperature": 2.0, "classes": list(OLD)}}
    return {
        "before": lambda: _tasks(first(), bench, new),
        "fine-tuned": lambda: second("fine-tuned"),
        "lwf": lambda: second("lwf", loss=kept, check_teacher=False, options={"teacher": {"before": "snapshot"}}),
    }


def _of(split: Split, digits: Sequence[int]) -> Split:
    return split.subset(torch.isin(split.labels(), torch.tensor(digits)).nonzero().flatten())


def _task(place: Room, digits: Sequence[int]) -> Room:
    assert place.data.train is not None
    return place.with_data(train=_of(place.data.train, digits), val=_of(place.data.val, digits))


def _tasks(net: nn.Module, bench: Bench, new: Sequence[int]) -> Figures:
    """Per cent of each task's test images answered rightly among its own digits, and of all among all ten."""
    data = bench.place.data
    answers, labels = logits(net, data.test, data.preprocessing)
    everything = 100 * float((answers.argmax(1) == labels).float().mean())
    return {"old": _among(answers, labels, OLD), "new": _among(answers, labels, new), "among ten": everything}


def _among(answers: Tensor, labels: Tensor, digits: Sequence[int]) -> float:
    chosen = torch.isin(labels, torch.tensor(digits))
    found = torch.tensor(digits)[answers[chosen][:, list(digits)].argmax(1)]
    return 100 * float((found == labels[chosen]).float().mean())


SCHEMES: dict[str, Callable[[Bench, int], Runs]] = {
    "teachers": several_teachers,
    "mutual": mutual,
    "byot": own_teacher,
    "ard": robust,
    "modal": half_images,
    "lwf": without_forgetting,
}
