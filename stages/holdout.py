"""Which images may choose, and which may only judge.

Accuracy is reported on images that chose nothing: no epoch, no variant, no setting. And nothing is chosen by
images that the weights may have been trained on, because a network looks better on those than it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..targets.errors import RecipeError
from .splits import Split, divide

VAL_OF_HOLDOUT = 0.2  # the smaller part chooses: the reported figure needs the narrower interval
FEWEST_THAT_CHOOSE = 100  # of real samples, where others were made that could choose
TEST_SHARE = 0.1  # of data that come in one piece

Parts = tuple[dict[str, Split], list[str]]


def apportion(
    splits: Mapping[str, Split],
    *,
    seed: int,
    val_share: float,
    given_weights: bool,
    source: str,
    samples: str = "images",
) -> Parts:
    """Make val and test (and train, where there is any) of what a source has, and say in words how.

    samples: what they are, in words. RecipeError: there are too few of them, or none to train on although no weights
    were given.
    """
    empty = [name for name, split in splits.items() if len(split) == 0]
    if empty:
        raise RecipeError(f"data.source {source}: {' and '.join(empty)} holds no {samples}")
    if "train" not in splits and not given_weights:
        raise RecipeError(
            f"data.source {source} has no {samples} to train on (only {' and '.join(splits)}), and the model "
            "comes without weights. Add a train split, or give model.weights."
        )
    holdouts = [name for name in ("val", "test") if name in splits]
    generator = torch.Generator().manual_seed(seed)
    if len(holdouts) == 2:
        return dict(splits), [f"the data's own val {samples} choose, its own test {samples} judge"]
    if not holdouts:
        return _from_one_piece(splits["train"], generator, val_share, given_weights, source, samples)
    name = holdouts[0]
    train = {"train": splits["train"]} if "train" in splits else {}
    if given_weights:
        return _halve(train, splits[name], name, generator, source, samples)
    return _carve(splits["train"], splits[name], name, generator, val_share, source, samples)


def judging(real: Split, *, seed: int) -> dict[str, Split]:
    """Val and test of real samples beside made ones: all of them are both where few would be left to choose."""
    if VAL_OF_HOLDOUT * len(real) < FEWEST_THAT_CHOOSE:
        return {"val": real, "test": real}
    val, test = divide(real.strata(), VAL_OF_HOLDOUT, generator=torch.Generator().manual_seed(seed))
    return {"val": real.subset(val), "test": real.subset(test)}


def _halve(
    train: dict[str, Split], holdout: Split, name: str, generator: torch.Generator, source: str, samples: str
) -> Parts:
    _at_least(2, holdout, name, source, samples)
    val, test = divide(holdout.strata(), VAL_OF_HOLDOUT, generator=generator)
    note = (
        f"the given weights may have been trained on the training {samples}, so the {len(holdout)} {name} "
        f"{samples} are divided: {len(val)} choose, {len(test)} judge"
    )
    return {**train, "val": holdout.subset(val), "test": holdout.subset(test)}, [note]


def _carve(
    train: Split, holdout: Split, name: str, generator: torch.Generator, val_share: float, source: str, samples: str
) -> Parts:
    _at_least(2, train, "train", source, samples)
    val, rest = divide(train.strata(), val_share, generator=generator)
    note = (
        f"the network is trained in this run, so {len(val)} of the {len(train)} training {samples} are set "
        f"aside to choose by; all {len(holdout)} {name} {samples} judge"
    )
    return {"train": train.subset(rest), "val": train.subset(val), "test": holdout}, [note]


def _from_one_piece(
    whole: Split, generator: torch.Generator, val_share: float, given_weights: bool, source: str, samples: str
) -> Parts:
    _at_least(3, whole, "the data", source, samples)
    test, others = divide(whole.strata(), TEST_SHARE, generator=generator)
    rest = whole.subset(others)
    val, train = divide(rest.strata(), val_share / (1 - TEST_SHARE), generator=generator)
    notes = [
        f"the data come in one piece, so {len(whole)} {samples} are divided: {len(train)} train, {len(val)} "
        f"choose, {len(test)} judge"
    ]
    if given_weights:
        notes.append(
            f"the given weights may have been trained on these very {samples}: accuracy can look better than it "
            "is. Give a test folder that training never saw."
        )
    return {"train": rest.subset(train), "val": rest.subset(val), "test": whole.subset(test)}, notes


def _at_least(number: int, split: Split, name: str, source: str, samples: str) -> None:
    if len(split) < number:
        raise RecipeError(
            f"data.source {source}: {name} has {len(split)} {samples}, too few to set any aside. Give more "
            f"{samples}, or give val and test apart."
        )
