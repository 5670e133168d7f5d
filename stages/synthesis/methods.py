"""Ways to make images from a network: what each plays, at which weights, and which one is taken. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..distill.settings import Loss
from .settings import Name, Synthesis

Play = Literal["turns", "pool", "pixels", "noise"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way.

    play: turns: a generator and the student take turns, on images that nobody keeps; pool: before every epoch a batch
    is made and joins those that are kept; pixels: the same, without a generator; noise: nothing is learned. priors:
    what the images are made by. with_norms: and where the teacher has batch norms. against: what is added while a
    student learns from them; a negative weight seeks what it drives the student away from. imitate: the student's
    losses in place of ce and kd. alone: the method that makes the images before there is a student, for one that can do
    nothing without. steps: of the generator for a batch. learns: steps of the student in a round. rounds: of an epoch.
    reuse: all steps of a round on the images of the generator's turn. latent_lr: of the random numbers behind the
    images, where they learn too. restart: the generator begins anew after so many batches. meta: each batch is made by
    a copy, and the generator learns to be a good start (first-order MAML). refresh: its first layer begins anew once,
    after so many batches. is_conditional: the generator is told the class. renews: the layer that tells it is random,
    anew for each batch, and its only noise. wants: images of a class that was drawn before. spreads: its images have
    the mean and the spread of the data. jitter: pixels by which optimised images are moved in each step. warm_up:
    batches that are thrown away before the first is kept. images: of the pool that is made before the first stage.
    """

    name: str
    paper: str
    says: str
    play: Play
    priors: Mapping[str, Loss] = field(default_factory=dict)
    with_norms: Mapping[str, Loss] = field(default_factory=dict)
    against: Mapping[str, Loss] = field(default_factory=dict)
    imitate: Mapping[str, Loss] = field(default_factory=dict)
    alone: str | None = None
    steps: int = 1
    learns: int = 1
    rounds: int = 60
    reuse: bool = False
    batch: int = 128
    latent: int = 100
    lr: float = 1e-3
    latent_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    restart: int | None = None
    meta: bool = False
    refresh: int | None = None
    is_conditional: bool = False
    renews: bool = False
    wants: bool = False
    spreads: bool = False
    jitter: int = 0
    needs_norms: bool = False
    warm_up: int = 0
    images: int = 2048

    @property
    def first(self) -> Method:
        """The method that makes the images before there is a student."""
        return METHODS[self.alone] if self.alone else self

    @property
    def grows(self) -> bool:
        """Whether images are made while a student learns; else the pool stays as it is."""
        return bool(self.against) or self.play == "turns"


def _loss(weight: float, **options: object) -> Loss:
    return Loss(weight=weight, options=options)


DISAGREE = "disagreement"

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="dafl", paper="Chen et al., 2019 (arXiv:1904.01186)",
            says="images of which the teacher is sure, of all classes alike",
            spreads=True, play="turns", priors={"onehot": _loss(1), "balance": _loss(5), "activation": _loss(0.1)},
            steps=1, reuse=True, lr=1e-2, warm_up=100,
        ),
        Method(
            name="dfad", paper="Fang et al., 2019 (arXiv:1912.11006)",
            says="images on which student and teacher disagree; asks nothing of the teacher's layers",
            spreads=True, play="turns", against={DISAGREE: _loss(-1, kind="l1")}, alone="dafl", learns=10,
            reuse=True,  # theirs are five steps on other images each, which takes longer and was not better on MNIST
            imitate={"logits": _loss(1, distance="l1")},  # kd lets the logits that it drives apart run away
        ),
        Method(
            name="zskt", paper="Micaelli and Storkey, 2019 (arXiv:1905.09768)",
            says="the same by divergence, and the student learns ten times from each batch",
            spreads=True, play="turns", against={DISAGREE: _loss(-1, kind="kl")}, alone="dafl", learns=10, reuse=True,
        ),
        Method(
            name="dfq", paper="Choi et al., 2020 (arXiv:2005.04136)",
            says="images on which student and teacher disagree and of which the teacher is sure, of all classes alike",
            spreads=True, play="turns", priors={"onehot": _loss(1), "balance": _loss(5)},
            with_norms={"bnstats": _loss(1)}, against={DISAGREE: _loss(-1, kind="kl")}, alone="dafl",
            learns=2, reuse=True,  # ten steps of the student on each batch taught less on MNIST
            rounds=120,  # take about as long as 60 of dfad, with its ten steps
        ),
        Method(
            name="deepinversion", paper="Yin et al., 2020 (arXiv:1912.08795)",
            says="pixels are changed until the teacher's batch norms see what they saw in training; slow",
            play="pixels", priors={"bnstats": _loss(10), "onehot": _loss(1), "tv": _loss(4e-4)},
            against={DISAGREE: _loss(-1, kind="js")}, steps=2000, batch=256, lr=0.1, jitter=2, wants=True,
            needs_norms=True, images=512,
        ),
        Method(
            name="cmi", paper="Fang et al., 2021 (arXiv:2105.08584)",
            says="a new generator for each batch, and images that differ from those before; slow",
            play="pool",
            priors={"bnstats": _loss(1), "onehot": _loss(0.5), "contrast": _loss(0.8)},
            against={DISAGREE: _loss(-0.5, kind="kl", where_equal=True)},
            steps=200, latent=256, latent_lr=1e-3, betas=(0.5, 0.999), restart=1, wants=True, needs_norms=True,
        ),
        Method(
            name="fastdfkd", paper="Fang et al., 2022 (arXiv:2112.06253)",
            says="a generator that learns to be a good start, from which a few steps make each batch",
            play="pool", priors={"bnstats": _loss(10, momentum=0.9), "onehot": _loss(0.4)},
            against={DISAGREE: _loss(-1.1, kind="kl", where_equal=True)},
            steps=5, latent=256, lr=3e-3, latent_lr=1e-2, betas=(0.5, 0.999), meta=True, refresh=140, wants=True,
            needs_norms=True, warm_up=20,
        ),
        Method(
            name="nayer", paper="Tran et al., 2024 (arXiv:2310.00258)",
            says="a generator that is told the class, with a noisy layer that begins anew for each batch",
            play="pool", priors={"bnstats": _loss(10), "onehot": _loss(0.5)},
            against={DISAGREE: _loss(-1.33, kind="kl", where_equal=True)},
            steps=40, latent=256, lr=4e-3, betas=(0.5, 0.999), restart=10, is_conditional=True, renews=True, wants=True,
            needs_norms=True,
        ),
        Method(
            name="gdfq", paper="Xu et al., 2020 (arXiv:2003.03603)",
            says="a generator that is told the class, without a student: images for training in INT8",
            play="turns", priors={"onehot": _loss(1), "bnstats": _loss(0.1, kind="mse")}, spreads=True,
            is_conditional=True, wants=True, needs_norms=True, warm_up=800,
        ),
        Method(
            name="zeroq", paper="Cai et al., 2020 (arXiv:2001.00281)",
            says="pixels as for deepinversion, from the batch norms alone: enough to calibrate",
            play="pixels", priors={"bnstats": _loss(1, kind="std", inputs=True)}, steps=500, batch=64, lr=0.5,
            needs_norms=True, images=256,
        ),
        Method(
            name="noise", paper="the control that each of these must beat",
            says="normal noise around the mean: tells how much the making is worth", play="noise",
        ),
    )
}  # fmt: skip
IN_TURNS, WITH_NORMS, TO_CALIBRATE = "dfq", "fastdfkd", "zeroq"


def choose(name: Name, *, has_norms: bool, only_calibrates: bool = False) -> tuple[Method, str]:
    """The method that is meant, and why, in a sentence.

    has_norms: the teacher has batch norms with statistics. only_calibrates: no student will learn from the images.
    """
    usual = (TO_CALIBRATE if only_calibrates else WITH_NORMS) if has_norms else IN_TURNS
    if name == "auto":
        return METHODS[usual], _why(usual)
    wanted = METHODS[name]
    if wanted.needs_norms and not has_norms:
        reason = f"{name} needs a teacher with batch norm, and this one has none: {usual} in its place"
        return METHODS[usual], reason
    return wanted, f"{name} was asked for"


def asked_of(settings: Synthesis, source: str) -> Name:
    """The method that a `data.source` and its settings ask for."""
    if source == "noise":
        return "noise"
    if source == "optimised" and settings.method == "auto":
        return "zeroq"
    return settings.method


def _why(name: str) -> str:
    return {
        TO_CALIBRATE: "zeroq: without a student a few batches of optimised pixels calibrate as well as any generator",
        WITH_NORMS: "fastdfkd: the teacher has batch norm, whose statistics tell most about its images, and of the "
        "methods that use them it takes the least time for its accuracy",
        IN_TURNS: "dfq: the teacher has no batch norm, and of the methods that ask nothing of its layers this one "
        "takes students furthest in the same time, and networks that recover from pruning",
    }[name]
