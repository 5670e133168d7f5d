"""The boards that a plan names: met before any work, so that no training ends at one that is switched off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pydantic import ValidationError

from ..targets import gpu
from ..targets.errors import DeviceError, RecipeError, RuntimeMissingError
from ..targets.profiles import NO_INT8, Profile
from ..targets.remote import fitting
from ..targets.remote.measuring import Board, meet
from ..targets.remote.together import on_all
from ..targets.runtimes import target
from .plan import Plan


def meet_all(plan: Plan, *, note: Callable[[str], None]) -> tuple[Plan, tuple[Board, ...]]:
    """The plan with what only the first board can tell, and the boards; none where nothing is measured over ssh.

    On a GPU of this machine it is TensorRT itself that tells.

    DeviceError, RuntimeMissingError: one cannot be reached, or does not fit; every such board is named.
    """
    if not plan.devices and plan.profile.measures_with == "tensorrt":
        return _for_this_gpu(plan), ()
    if not plan.devices or not any(entry.name == "profile" and entry.skip is None for entry in plan.stages):
        return plan, ()
    measure = plan.recipe.section("profile")
    asked = [
        lambda address=address: meet(
            address,
            plan.profile,
            python=plan.recipe.device_python,
            lock_clocks=measure.lock_clocks,
            power_mode=measure.power_mode,
        )
        for address in plan.devices
    ]
    found = on_all(asked)
    errors = [one for one in found if isinstance(one, BaseException)]
    for error in errors:
        if not isinstance(error, (DeviceError, RuntimeMissingError)):
            raise error
    if errors:
        kind = type(errors[0]) if len({type(error) for error in errors}) == 1 else DeviceError
        raise kind("\n".join(map(str, errors)))
    boards = tuple(one for one in found if isinstance(one, Board))
    first = boards[0]
    for text in fitting.notes(plan.profile, first.facts):
        note(f"{first.address}: {text}")
    profile = fitting.adapted(plan.profile, first.facts)
    if plan.profile.weight_bits == "auto":  # what saturates on one of them is too wide for all
        bits = min(fitting.weight_bits(board.facts) for board in boards)
        profile = profile.model_copy(update={"weight_bits": bits})
    return replace(plan, profile=profile), boards


def _for_this_gpu(plan: Plan) -> Plan:
    """RecipeError: the profile asks for what this GPU has not."""
    found, profile = gpu.find(), plan.profile
    assert isinstance(found, gpu.Gpu), "a runtime that is not here was refused before"
    if "int8" in profile.precisions and found.compute_capability in NO_INT8:
        raise RecipeError(
            f"profile {profile.name} quantises to INT8, and {found.name} (compute capability "
            f"{found.compute_capability}) has no INT8 units: leave int8 out of its precisions, and write `qdq: none`"
        )
    version = target("tensorrt").version()
    told = {"runtime_version": version, "compute_capability": found.compute_capability}
    try:
        adapted = Profile.model_validate(profile.model_dump() | told)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise RecipeError(f"profile {profile.name} does not fit the TensorRT here, {version}: {why}") from None
    return replace(plan, profile=adapted)
