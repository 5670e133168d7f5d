"""Samples that are made while a student learns from them: drawn anew for each turn, or kept in a pool that grows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...targets.errors import RecipeError, StageError
from ..crew import Crew
from ..distill.nouns import Batch, Player
from ..distill.samples import PROBE, Loaded, Second
from ..distill.watching import still
from ..splits import InMemory, Split
from .collapse import Watch, words
from .filling import told
from .generating import ByGenerator
from .generators import Generator
from .makers import Maker
from .order import Order, mixed
from .pool import Pool
from .score import Score, examine

LOOK = 256  # images that a generator's state is judged by at the end of an epoch
TURNS = 1_000_003  # more than an epoch has: none varies its images as another does


class Generated:
    """Images that a generator makes for each turn and that nobody keeps.

    The generator's own turn sees them with the gradient that leads to it. A student sees them as they are: the
    generator then plays without gradient and in train mode, so that its batch norms work on the batch as in its own
    turn, as the authors of DAFL, DFAD and ZSKT have it.
    """

    def __init__(
        self, generator: Generator, order: Order, *, teacher: nn.Module, crew: Crew, note: Callable[[str], None]
    ) -> None:
        """order: its batch is that of all processes together. note: told when the generator had to begin anew."""
        self.generator, self.order, self.crew, self.watch = generator, order, crew, Watch()
        self._teacher, self._note = teacher, note
        self._player: Player | None = None
        self._batch: Batch | None = None
        self._shown: set[str] = set()

    def played_by(self, player: Player) -> None:
        """Whose turn it is when images get a gradient, and whose optimiser forgets when the generator begins anew."""
        self._player = player

    def begin(self, epoch: int) -> int:
        if epoch:
            self._begin_anew_if_collapsed(epoch)
        self._dice = torch.Generator().manual_seed(mixed(self.order.seed, epoch, self.crew.rank))
        self._turn, self._batch = epoch * TURNS, None
        return self.order.rounds

    def next(self, player: Player) -> Batch:
        if player is self._player:
            batch = self._made()
            self._batch = Batch(x=batch.x.detach()) if self.reuses else None
            return batch
        if self._batch is None or (player.name in self._shown and not self.reuses):
            with torch.no_grad():
                self._batch = Batch(x=self._made().x)
            self._shown.clear()
        self._shown.add(player.name)
        return self._batch

    def probe(self) -> Batch:
        drawn = self.order.drawn(torch.Generator().manual_seed(self.order.seed), count=PROBE)
        with still(self.generator):
            return Batch(x=self.order.input(drawn.by(self.generator), turn=0))

    def state_dict(self) -> dict[str, Any]:
        """The generator itself is saved by its player; every epoch has random numbers of its own."""
        return self.watch.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.watch.load_state_dict(state)

    def newest(self) -> Tensor:
        """Images that the generator makes now, 0 to 1."""
        dice = torch.Generator().manual_seed(self.order.seed)
        with torch.random.fork_rng(), torch.no_grad():
            return self.order.drawn(dice, count=LOOK).by(self.generator.train())

    def score(self) -> Score:
        """What the teacher, and the student, answer to those."""
        student = None if self._player is None else self._player.learner
        return examine(self.newest(), self._teacher, self.order.preprocessing, student)

    @property
    def reuses(self) -> bool:
        """Whether a student takes all its steps of a round on the images of the generator's turn."""
        asked = self.order.settings.reuse
        return self.order.method.reuse if asked is None else asked

    def _made(self) -> Batch:
        self._turn += 1
        drawn = self.order.drawn(self._dice, count=len(self.crew.part(torch.arange(self.order.batch))))
        images = drawn.by(self.generator.train())
        return Batch(x=self.order.input(images, turn=self._turn), y=drawn.wanted)

    def _begin_anew_if_collapsed(self, epoch: int) -> None:
        reason = self.crew.told(self.watch.spent(self.score()))
        if self._player is None or not self.watch.must_begin_anew(reason):
            return
        self.generator.load_state_dict(self.order.generator(self._teacher, number=epoch).state_dict())
        self._player.optimizer.state.clear()
        self._note(words(epoch, str(reason)))


class Pooled(Loaded):
    """Images of a pool that grows: before every epoch a batch is made against the student as it then is, and joins.

    The images that were made before there was a student count as well. In each round the student has a batch of them by
    lot, varied as those of data would be. The newest images have no part in the epoch's choice: validation images were
    made from the teacher alone.
    """

    def __init__(
        self,
        base: Split,
        maker: Maker,
        pool: Pool,
        *,
        order: Order,
        teacher: nn.Module,
        student: nn.Module,
        batch_size: int,
        crew: Crew,
        note: Callable[[str], None] = lambda text: None,
        second: Second | None = None,
    ) -> None:
        """base: images that were made from the teacher alone. pool: for those that are made now; what an earlier run
        left there is forgotten, unless a checkpoint tells how far that run was. note: told when the generator had to
        begin anew."""
        super().__init__(
            base,
            order.preprocessing,
            batch_size=batch_size,
            seed=order.seed,
            crew=crew,
            augmentation=order.augmentation,
            second=second,
        )
        self.maker, self.pool, self.order = maker, pool, order
        self.seconds, self.watch = 0.0, Watch()  # seconds: of making images
        self._base, self._teacher, self._student, self._is_resumed = base, teacher, student, False
        self._note = note

    def begin(self, epoch: int) -> int:
        if not self._is_resumed:
            self._is_resumed = True
            self.pool.forget()
        started = time.perf_counter()
        images = self._made(epoch)
        self.seconds += time.perf_counter() - started
        labels, confidence = told(self._teacher, images, self.order.preprocessing, device=self.order.device)
        self.pool.add(images, labels, confidence=confidence, note={"epoch": epoch + 1})
        whole = torch.cat([self._base.read(torch.arange(len(self._base))), self.pool.images()])
        self.split = Split(InMemory(whole), torch.zeros(len(whole), dtype=torch.int64), is_labelled=False)
        return super().begin(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The maker, and which images there are: they themselves lie in the pool."""
        return {"maker": self.maker.state_dict(), "pool": self.pool.state_dict(), "watch": self.watch.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; images that were made later are forgotten. StageError: some are not there any more."""
        try:
            self.pool.load_state_dict(state["pool"])
        except RecipeError as error:
            raise StageError(f"this training cannot go on: {error}") from None
        self.maker.load_state_dict(state["maker"])
        self.watch.load_state_dict(
            state.get("watch", self.watch.state_dict())
        )  # not in checkpoints before this was watched
        self._is_resumed = True

    def newest(self) -> Tensor:
        """The images that were made last, uint8."""
        return self.pool.images()[-self.order.batch :]

    def score(self) -> Score | None:
        """What the teacher, and the student, answer to those; None: there are none."""
        newest = self.newest()
        return examine(newest, self._teacher, self.order.preprocessing, self._student) if len(newest) else None

    def _made(self, epoch: int) -> Tensor:
        """A batch. Where the generator goes on making what teaches nothing, another begins, and warms up as it did."""
        while self.maker.made < self.order.method.warm_up:
            self.maker.make(epoch=float(epoch))
        images = self.maker.make(epoch=float(epoch))
        if not isinstance(self.maker, ByGenerator):  # each batch begins anew as it is
            return images
        reason = self.watch.spent(examine(images, self._teacher, self.order.preprocessing, self._student))
        if not self.watch.must_begin_anew(reason):
            return images
        self.maker.begin_anew()
        for _ in range(self.order.method.warm_up):
            self.maker.make(epoch=float(epoch))
        self._note(words(epoch, str(reason)))
        return self.maker.make(epoch=float(epoch))

    def _open(self, epoch: int) -> tuple[int, Iterator[tuple[Tensor, Tensor, Tensor]]]:
        rounds, count = self.order.rounds, len(self.split)
        dice = torch.Generator().manual_seed(mixed(self.seed, epoch))
        turns = math.ceil(rounds * self.batch_size / count)
        shuffled = torch.cat([torch.randperm(count, generator=dice) for _ in range(turns)])
        batches = shuffled[: rounds * self.batch_size].view(rounds, self.batch_size)
        return rounds, (self.split.__getitems__(self.crew.part(places).tolist()) for places in batches)

    def _prepared(self, images: Tensor, labels: Tensor, index: Tensor, *, epoch: int) -> Batch:
        """Without the places: they change as the pool grows."""
        return replace(super()._prepared(images, labels, index, epoch=epoch), index=None)
