"""Texts as a user would hand them over: a function that returns numbers of tokens, and says that they are texts.

    task: text
    data: examples/text_data.py:requests

What customers write to a shop, made from a grammar, so that the example runs anywhere: who wants what of which thing.
Two wishes may stand in one sentence and only their order tells which one counts, and a tenth of the verbs are in the
test sentences alone: a network is right only as far as it understands the rest. Yours will rather be read from a file
with your own tokeniser; a text is a row of numbers, padded to one length.

`requests` asks for the wish of the whole sentence, `slots` for the part that each word plays (task: tokens).
"""

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH = 24
VERBS = {
    "buy": ["buy", "order", "purchase", "get", "reserve", "book", "acquire", "take", "request", "obtain"],
    "return": ["return", "refund", "exchange", "replace", "swap", "resend", "restore", "reject", "undo", "reverse"],
    "track": ["track", "find", "trace", "locate", "follow", "check", "watch", "monitor", "see", "inspect"],
    "cancel": ["cancel", "stop", "drop", "withdraw", "revoke", "abort", "end", "void", "halt", "terminate"],
    "repair": ["repair", "fix", "mend", "service", "patch", "clean", "adjust", "rebuild", "restart", "tune"],
}
HELD_OUT = 1  # of each row, the last ones: seen in test sentences alone
THINGS = [
    "lamp", "chair", "table", "phone", "camera", "kettle", "jacket", "bicycle", "ticket", "book", "radio", "carpet",
    "watch", "mirror", "printer",
]  # fmt: skip
LOOKS = ["red", "small", "old", "broken", "new", "heavy", "wrong", "second", "blue", "cheap"]
PLACES = ["berlin", "lisbon", "oslo", "warsaw", "office", "garage", "store", "warehouse", "airport", "station"]
PEOPLE = ["i", "we", "she", "he", "they", "anna", "peter"]
FILLERS = ["please", "now", "really", "maybe", "today", "again", "just", "quickly", "well", "then"]
TEMPLATES = (
    "{who} want to {wish} the {thing}",
    "{who} would like to {wish} the {thing} from {place}",
    "can you {wish} the {thing} for {who}",
    "how do {who} {wish} the {thing}",
    "{who} did not {other} the {thing} but will {wish} it",
    "{who} will {wish} the {thing} instead of trying to {other} it",
    "do not {other} the {thing} in {place} , {wish} it",
    "{wish} the {thing} before {who} {other} it",
    "after {who} {other} the {thing} please {wish} it in {place}",
)
ROLES = ("nothing", "person", "thing", "place", "wish")
GRAMMAR = sorted({word for line in TEMPLATES for word in line.split() if "{" not in word})
WORDS = ["<pad>", "<unknown>", "<start>"]
WORDS += sorted(
    {*GRAMMAR, *THINGS, *LOOKS, *PLACES, *PEOPLE, *FILLERS, *(word for row in VERBS.values() for word in row)}
)
NUMBER = {word: number for number, word in enumerate(WORDS)}


def requests() -> dict[str, Any]:
    """What the writer wants, one of five wishes."""
    parts = {"train": sentences(4000, seed=1, held_out=False), "test": sentences(1200, seed=2, held_out=True)}
    wishes = list(VERBS)
    found = {
        name: (numbers([words for words, _, _ in rows]), np.array([wishes.index(wish) for _, _, wish in rows]))
        for name, rows in parts.items()
    }
    return {**found, "task": "text", "classes": wishes, "vocabulary": len(WORDS), "pad": 0}


def slots() -> dict[str, Any]:
    """Which part each word plays: a label for every token; padding has none."""
    parts = {"train": sentences(2000, seed=3, held_out=False), "test": sentences(600, seed=4, held_out=True)}
    found = {name: (numbers([words for words, _, _ in rows]), roles(rows)) for name, rows in parts.items()}
    return {**found, "task": "tokens", "classes": ROLES, "vocabulary": len(WORDS), "pad": 0}


def sentences(count: int, *, seed: int, held_out: bool) -> list[tuple[list[str], list[str], str]]:
    """Words, the part that each one plays, and the wish."""
    return [sentence(random.Random(f"{seed} {number}"), held_out=held_out) for number in range(count)]


def sentence(lots: random.Random, *, held_out: bool) -> tuple[list[str], list[str], str]:
    wish, other = lots.sample(list(VERBS), 2)
    verbs = {name: row if held_out else row[:-HELD_OUT] for name, row in VERBS.items()}
    fillings = {
        "who": ("person", PEOPLE), "thing": ("thing", THINGS), "place": ("place", PLACES),
        "wish": ("wish", verbs[wish]), "other": ("nothing", verbs[other]),
    }  # fmt: skip
    words, parts = ["<start>"], ["nothing"]
    for word in lots.choice(TEMPLATES).split():
        role, choices = fillings.get(word.strip("{}"), ("nothing", [word]))
        if role == "thing" and lots.random() < 0.5:
            words.append(lots.choice(LOOKS))
            parts.append("nothing")
        words.append("<unknown>" if lots.random() < 0.03 else lots.choice(choices))
        parts.append(role)
        if lots.random() < 0.1:
            words.append(lots.choice(FILLERS))
            parts.append("nothing")
    return words[:LENGTH], parts[:LENGTH], wish


def numbers(texts: list[list[str]]) -> NDArray[np.int64]:
    """(texts, LENGTH): the words' numbers, and 0 behind the last one."""
    rows = np.zeros((len(texts), LENGTH), dtype=np.int64)
    for row, words in zip(rows, texts, strict=True):
        row[: len(words)] = [NUMBER.get(word, NUMBER["<unknown>"]) for word in words]
    return rows


def roles(rows: list[tuple[list[str], list[str], str]]) -> NDArray[np.int64]:
    """(texts, LENGTH): the number of each word's role; -100, which counts for nothing, behind the last one."""
    found = np.full((len(rows), LENGTH), -100, dtype=np.int64)
    for row, (_, parts, _) in zip(found, rows, strict=True):
        row[: len(parts)] = [ROLES.index(part) for part in parts]
    return found
