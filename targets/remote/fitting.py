"""Does a profile fit the board that answers, and which of the shipped ones does?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from ..cpu import sums_saturate
from ..operator_tables import opset_limit, version_tuple
from ..profiles import Profile
from .boards import BoardFacts

LEAST_DISK_MB = 64  # models, inputs and results of a small job; a job's own size is checked before it is sent
UNITS = frozenset({"amx"})  # of CPUs that are told apart by them, without a number in their names
WORDS_IN_COMMON = 0.6  # of what a profile calls its board, for it to be this board


def missing(profile: Profile, facts: BoardFacts) -> str | None:
    """What has to be installed on the board before the profile's runtime runs there; None: nothing."""
    if profile.runtime == "tensorrt":
        if facts.trtexec is None:
            return "trtexec is neither in PATH nor in /usr/src/tensorrt/bin there: install TensorRT with JetPack"
        return None
    if profile.runtime not in facts.runtimes:
        return (
            f"{profile.runtime} cannot be imported by the board's Python {facts.python}: install it there "
            f"(pip install {profile.runtime}), or name the Python of an environment that has it with --device-python"
        )
    return None


def problems(
    profile: Profile, facts: BoardFacts, *, lock_clocks: bool = False, power_mode: int | None = None
) -> list[str]:
    """Why a job made for the profile cannot run on the board, each with what to do."""
    found = []
    if profile.runtime == "tensorrt" and facts.tensorrt is not None:
        limit = opset_limit(facts.tensorrt)
        if limit < profile.opset:
            found.append(
                f"profile {profile.name} exports opset {profile.opset} for TensorRT {profile.runtime_version}, and the "
                f"board has TensorRT {facts.tensorrt}, which reads up to opset {limit}: take a profile for that version"
            )
    if "int8" in profile.precisions and facts.has_int8 is False:
        found.append(
            f"profile {profile.name} quantises to INT8, and the GPU of {facts.model} has no INT8 units: "
            "take a profile without INT8, such as jetson-nano"
        )
    if facts.disk_free_mb < LEAST_DISK_MB:
        found.append(
            f"only {facts.disk_free_mb} MiB are free in {facts.home} there: make room, or `compress device clean`"
        )
    if lock_clocks and facts.l4t is None:
        found.append("--lock-clocks holds the clocks of a Jetson, and this is none: set its governor by hand")
    elif lock_clocks and not facts.has_sudo:
        found.append(
            "--lock-clocks needs sudo without a password there: allow jetson_clocks in /etc/sudoers.d, "
            "or run `sudo jetson_clocks` on the board and leave the option out"
        )
    if power_mode is not None and facts.l4t is None:
        found.append("--power-mode is of a Jetson, and this is none: leave it out")
    elif power_mode is not None and not facts.has_sudo:
        found.append(
            "--power-mode needs sudo without a password there: allow nvpmodel in /etc/sudoers.d, "
            f"or run `sudo nvpmodel -m {power_mode}` on the board and leave the option out"
        )
    return found


def notes(profile: Profile, facts: BoardFacts) -> list[str]:
    """What differs from the profile and does no harm."""
    if profile.runtime != "tensorrt" or facts.tensorrt is None or profile.runtime_version is None:
        return []
    if version_tuple(facts.tensorrt)[:2] == version_tuple(profile.runtime_version)[:2]:
        return []
    return [
        f"the board has TensorRT {facts.tensorrt}, and profile {profile.name} is written for "
        f"{profile.runtime_version}: flags and operators are those of the board's version"
    ]


def adapted(profile: Profile, facts: BoardFacts) -> Profile:
    """The profile with what only the board itself can tell: the version of TensorRT, and whether byte sums saturate."""
    changes: dict[str, str | int] = {}
    if profile.runtime == "tensorrt" and facts.tensorrt is not None:
        changes["runtime_version"] = facts.tensorrt
    if profile.weight_bits == "auto":
        changes["weight_bits"] = weight_bits(facts)
    return profile.model_copy(update=changes)


def weight_bits(facts: BoardFacts) -> Literal[7, 8]:
    return 7 if sums_saturate(facts.machine, facts.instruction_sets) else 8


def best(profiles: Sequence[Profile], facts: BoardFacts) -> list[Profile]:
    """Profiles that would run on the board as it is: those that name it, or else those of no board in particular."""
    fitting = [one for one in profiles if missing(one, facts) is None and not problems(one, facts)]
    alike = {one.name: _likeness(one, facts) for one in fitting}
    highest = max(alike.values(), default=0.0)
    named = [one for one in fitting if alike[one.name] == highest >= WORDS_IN_COMMON]
    if not named and facts.gpu is not None and facts.trtexec is not None:
        named = [one for one in fitting if one.runtime == "tensorrt"]
    plain = [one for one in fitting if one.device == "local"]
    return sorted(named or plain, key=lambda one: (bool(notes(one, facts)), one.name))


def _likeness(profile: Profile, facts: BoardFacts) -> float:
    """The share of the words for the profile's board that the board uses of itself, 0 to 1.

    0 where a number, or a unit of its CPU, is another one.
    """
    asked = _words(profile.board)
    told = _words(" ".join((facts.model or "", facts.cpu or "", *facts.instruction_sets)))
    telling = {word for word in asked if word in UNITS or any(letter.isdigit() for letter in word)}
    return len(asked & told) / len(asked) if asked and telling <= told else 0.0


def _words(text: str) -> set[str]:
    without_memory = re.sub(r"\b\d+ ?gb\b", " ", text.lower())
    return set(re.findall(r"[a-z0-9]+", without_memory)) - {"nvidia", "r", "tm", "cpu", "with", "or", "and"}
