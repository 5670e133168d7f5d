"""Train a student to answer as the original does."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from ...targets.profiles import Profile
from ..artifact import Artifact, Context, Form
from ..lesson import STRICT, Epochs, Lesson, Weight, check


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Distill(Lesson):
    """Cross-entropy with the labels and imitation of the teacher, by weight, or any losses of `compress losses`.

    Hinton et al., 2015 (arXiv:1503.02531). data: images to imitate on in place of the data's own; any, labels are not
    looked at. peers: so many networks like the student, from different starts, learn from each other's answers as they
    learn (Zhang et al., 2018, arXiv:1706.00384, with ce, kd and temperature 1), without a teacher unless one is named;
    the best is kept. peer_lag: they see each other as of up to so many updates ago. peer_inputs: `crossed` gives the
    second of two peers what the data have for teachers, another modality, and each learns from the other.
    keep_exit: end at this exit of the loss byot, counted from 1: a smaller network; none: exits are gone.
    """

    epochs: Epochs = 20
    ce: Weight = 0.1
    kd: Weight = 0.9
    data: str | None = None
    peers: Annotated[int, Field(ge=1, le=16)] = 1
    peer_lag: Annotated[int, Field(ge=0)] = 0
    peer_inputs: Literal["same", "crossed"] = "same"
    keep_exit: Annotated[int, Field(ge=1)] | None = None

    name: ClassVar[str] = "distill"
    takes: ClassVar[frozenset[Form | Literal["files"]]] = frozenset({"float"})
    gives: ClassVar[Form | Literal["files", "figures", "same"]] = "float"

    _checked = model_validator(mode="after")(check)

    def problem(self) -> str | None:
        """What does not go together, in words."""
        if self.peer_inputs == "crossed" and self.peers != 2:
            return f"peer_inputs crossed is for 2 peers, and peers is {self.peers}"
        if self.peer_inputs == "crossed" and self.attack is not None:
            return "attack moves the pixels of one kind of sample, and crossed peers take two: leave out one of the two"
        if self.keep_exit is not None and "byot" not in self.losses():
            return "keep_exit keeps an exit that the loss byot trains, and loss has no byot"
        if self.keep_exit is not None and self.peers > 1:
            return "keep_exit is for a single student, and peers compare whole networks: leave out one of the two"
        return super().problem()

    def skip_reason(self, profile: Profile, *, alone: bool) -> str | None:
        if alone and self._is_plain and all(one.source in ("model", "float") for one in self.teacher or ()):
            return "the student is the model itself; the recovery after pruning distils from it"
        return "epochs is 0" if self.epochs == 0 else None

    @property
    def _is_plain(self) -> bool:
        """Nothing but a teacher could teach anything."""
        return self.loss is None and self.attack is None and self.peers == 1

    def run(self, artifact: Artifact, context: Context) -> Artifact:
        from ..improve import improve

        return improve(artifact, context, stage="distill", lesson=self)
