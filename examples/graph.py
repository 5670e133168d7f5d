"""Nodes of a graph: a teacher that looks at a node's neighbours, and a student that needs no graph.

    compress examples/graph_1_teacher.yaml --out examples/runs/graph
    compress examples/graph_2_student.yaml

Papers that cite each other, drawn by a stochastic block model, so that the example runs anywhere: those of one field
cite each other more often, and use its words a little more often. Only a few have a label. A paper's own words say
little about its field, those of its neighbours more, which a graph network knows how to use (Kipf & Welling, 2017,
arXiv:1609.02907). Its answers for papers without a label teach a network that reads the words alone, and that is all
that a device needs: GLNN (Zhang et al., 2022, arXiv:2110.08727).

A sample is a node. The student is given its words, (1, 1, WORDS); the teacher its neighbourhood,
(1, MEMBERS, MEMBERS + WORDS): who cites whom among the node, which stands first, and those around it, and beside that
everybody's words. Of a large graph, too, this fits in a batch (Zeng et al., 2021, arXiv:2201.07858).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FIELDS = ("vision", "language", "robots", "theory", "systems")
PAPERS, WORDS, MEMBERS = 3000, 120, 24
LABELLED, VALIDATION, TEST = 100, 300, 1000  # the others have no label
WITHIN, BETWEEN = 5.0, 2.0  # citations of a paper, on average: in its field, and in all others together
USUAL, OWN = 0.05, 0.15  # how often a paper has a word, and a word of its field

Arrays = tuple[NDArray[np.float32], ...]


def neighbourhoods(seed: int = 0) -> dict[str, Any]:
    """What the teacher learns from: neighbourhoods and labels."""
    _, around, fields = graph(seed)
    parts = {name: (around[nodes], fields[nodes]) for name, nodes in split().items() if name != "rest"}
    return {**parts, "classes": FIELDS}


def papers(seed: int = 0) -> dict[str, Any]:
    """What the student learns from: words and labels, and what its teacher is shown in place of the words."""
    words, around, fields = graph(seed)
    parts = {name: (words[nodes], fields[nodes], around[nodes]) for name, nodes in split().items() if name != "rest"}
    return {**parts, "classes": FIELDS}


def unlabelled(seed: int = 0) -> dict[str, Any]:
    """Every paper but those of validation and test, for `distill.data`, which looks at no label."""
    words, around, _ = graph(seed)
    nodes = np.concatenate([split()["train"], split()["rest"]])
    return {"train": (words[nodes], np.zeros(len(nodes), dtype=np.int64), around[nodes]), "classes": FIELDS}


def split() -> dict[str, NDArray[np.int64]]:
    """Which papers are for what; they stand in no order."""
    ends = np.cumsum([LABELLED, VALIDATION, TEST])
    return dict(zip(("train", "val", "test", "rest"), np.split(np.arange(PAPERS), ends), strict=True))


def graph(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Words (papers, 1, WORDS), neighbourhoods (papers, MEMBERS, MEMBERS + WORDS), and fields (papers,)."""
    lots = np.random.default_rng(seed)
    fields = lots.integers(len(FIELDS), size=PAPERS)
    same = fields[:, None] == fields
    chance = np.where(same, WITHIN * len(FIELDS), BETWEEN * len(FIELDS) / (len(FIELDS) - 1)) / PAPERS
    upper = np.triu(lots.random((PAPERS, PAPERS)) < chance, 1)
    cites = upper | upper.T
    is_own = np.arange(WORDS) % len(FIELDS) == fields[:, None]
    words = (lots.random((PAPERS, WORDS)) < np.where(is_own, OWN, USUAL)).astype(np.float32)
    around = np.stack([neighbourhood(node, cites, words) for node in range(PAPERS)])
    return words[:, None], around, fields


def neighbourhood(node: int, cites: NDArray[np.bool_], words: NDArray[np.float32]) -> NDArray[np.float32]:
    """The node, its neighbours, and theirs, as many as there is room for; empty rows where there are fewer."""
    near = np.flatnonzero(cites[node])
    far = np.setdiff1d(np.flatnonzero(cites[near].any(axis=0)), [node, *near])
    members = np.array([node, *near, *far])[:MEMBERS]
    found = np.zeros((MEMBERS, MEMBERS + WORDS), dtype=np.float32)
    found[: len(members), : len(members)] = cites[np.ix_(members, members)] | np.eye(len(members), dtype=bool)
    found[: len(members), MEMBERS:] = words[members]
    return found


class GraphNetwork(nn.Module):
    """Two layers, each of which averages over the neighbours first; the answer is that of the first node."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(WORDS, width)
        self.second = nn.Linear(width, len(FIELDS))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        cites, words = x[:, 0, :, :MEMBERS], x[:, 0, :, MEMBERS:]
        share = cites.sum(dim=2, keepdim=True).clamp(min=1).rsqrt()
        mixing = share * cites * share.transpose(1, 2)
        hidden = torch.matmul(mixing, self.first(self.dropout(words))).relu()
        return self.second(self.dropout(torch.matmul(mixing[:, :1], hidden)[:, 0]))


def graph_network() -> nn.Module:
    """The teacher."""
    return GraphNetwork(128)


def words_alone() -> nn.Module:
    """The student: a paper's own words are all that it takes."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(WORDS, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, len(FIELDS))
    )  # fmt: skip
