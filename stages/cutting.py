"""Cut a network at one of its exits: what comes after the tap is gone, and the exit's head answers."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, fx, nn

from ..targets.errors import StageError
from .distill.exits import BeYourOwnTeacher, Exit, ExitShape
from .distill.nouns import Player
from .distill.watching import answer

HEAD = "early_exit"  # the head's name in a network that was cut


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where a network is cut, as plain data: enough to cut a fresh one in the same way."""

    tap: str
    head: ExitShape

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Cut:
        """What `facts` told."""
        return cls(tap=facts["tap"], head=ExitShape(**facts["head"]))


class AtExit(nn.Module):
    """A network that answers at one of its exits, while it is trained as a whole."""

    def __init__(self, network: nn.Module, tap: str, head: Exit) -> None:
        super().__init__()
        self.network, self.head = network, head
        self._tap = tap

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(answer(self.network, x, (self._tap,)).feats[self._tap])
        return logits

    @property
    def cut(self) -> Cut:
        """Where it would be cut."""
        return Cut(tap=self._tap, head=self.head.shape)


@dataclass(kw_only=True)
class KeptExit:
    """Which exit of the loss `byot` a student will end at, counted from 1, the shallowest; found once it is wired."""

    number: int
    network: AtExit | None = None

    def found(self, player: Player) -> AtExit:
        """The player's network as it answers there. StageError: there is no such exit."""
        terms = [part.term for part in player.objective.parts if isinstance(part.term, BeYourOwnTeacher)]
        if not terms:
            raise StageError("keep_exit keeps an exit that the loss byot has trained: give byot a weight")
        exits = list(zip(terms[0].taps(), terms[0].exits, strict=False))
        if self.number > len(exits):
            raise StageError(
                f"keep_exit {self.number}: the student has {len(exits)} exits, at {', '.join(tap for tap, _ in exits)}"
            )
        tap, head = exits[self.number - 1]
        assert isinstance(head, Exit)
        self.network = AtExit(player.learner, tap, head)
        cut_at(player.learner, self.network.cut)  # what cannot be cut is better known before the training
        return self.network

    def cut(self) -> tuple[fx.GraphModule, Cut]:
        """The trained network, cut, and how it was done."""
        assert self.network is not None, "no student was trained for this exit"
        return cut_at(self.network.network, self.network.cut, self.network.head), self.network.cut


def cut_at(network: nn.Module, cut: Cut, head: nn.Module | None = None) -> fx.GraphModule:
    """A copy of the network that ends at the tap and answers through the head; parameters keep their names.

    head: its weights; None: fresh ones, which are to be loaded afterwards. StageError: torch cannot trace the network.
    """
    module = copy.deepcopy(network).eval()
    tracer = _Tracer(cut.tap)
    try:
        graph = tracer.trace(module)
    except (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError, ValueError) as error:
        raise StageError(
            f"torch.fx cannot trace {type(network).__name__}, which an early exit needs: {error}. "
            "Its forward must not branch on the values of tensors. Leave out keep_exit."
        ) from None
    graph_module = fx.GraphModule(tracer.root, graph, class_name=type(network).__name__)
    graph_module.add_submodule(HEAD, Exit(cut.head) if head is None else copy.deepcopy(head))
    taps = [node for node in graph.nodes if node.op == "call_module" and node.target == cut.tap]
    if len(taps) != 1:
        raise StageError(f"the network calls {cut.tap} {len(taps)} times in a pass: it cannot be cut there")
    end = next(node for node in graph.nodes if node.op == "output")
    with graph.inserting_after(taps[0]):
        said = graph.call_module(HEAD, (taps[0],))
    end.args = (said,)
    graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph.lint()
    graph_module.recompile()
    return graph_module.eval()


class _Tracer(fx.Tracer):
    """Leaves the tapped module whole, so that the graph has a node for what it says."""

    def __init__(self, tap: str) -> None:
        super().__init__()
        self._tap = tap

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name == self._tap or super().is_leaf_module(m, module_qualified_name)
