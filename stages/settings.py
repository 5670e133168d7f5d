"""What a recipe may say about a model and its data. No torch here: a recipe is checked before it loads."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .synthesis.settings import TAKES, Synthesis, kind_of

Positive = Annotated[int, Field(ge=1)]
CONTROLS = ("noise", "images")  # kinds of images that made ones must beat


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Settings):
    """Where a network comes from."""

    source: str = Field(
        description="path/to/file.py:function, torchvision:NAME, timm:NAME, transformers:FOLDER or builtin:NAME"
    )
    weights: str | None = Field(None, description=".pt or .pth (tensors only) or .safetensors")
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the function")

    @property
    def has_weights(self) -> bool:
        """Whether the network was trained before; a folder of transformers' holds its weights."""
        kind, _, name = self.source.partition(":")
        return self.weights is not None or (kind == "transformers" and "/" in name)


class StudentSettings(ModelSettings):
    """Where the network to ship comes from, and what it knows before it is taught."""

    initialise: str | None = Field(
        None,
        description="teacher: start from the teacher's weights, of which the student has fewer channels or blocks; of "
        "several teachers the name of one, or model; none: random weights, or those of `weights`",
    )

    @model_validator(mode="after")
    def _has_one_start(self) -> "StudentSettings":
        if self.weights is not None and self.initialise is not None:
            raise ValueError("weights and initialise are two starts of one network: leave out one of them")
        return self


class DataSettings(_Settings):
    """Where images come from and how they reach the network."""

    source: str = Field(
        description="imagefolder:PATH, torchvision:NAME, mnist:PATH, path/to/file.py:function, builtin:digits; without "
        "data: none (generated), optimised, noise, images:FOLDER (any pictures), cached:FOLDER (of an earlier run)"
    )
    size: tuple[Positive, Positive] | Positive | None = Field(
        None, description="height and width in pixels; none: that of the images"
    )
    mean: tuple[float, ...] | None = Field(
        None,
        description="subtracted from each channel, in units of 0 to 1; none: what is usual for such images",
    )
    std: tuple[float, ...] | None = Field(None, description="each channel is divided by it after the mean")
    augment: tuple[Literal["flip", "crop", "shift"], ...] = Field(
        (), description="flip: left-right; crop: up to an eighth of the side, padded; shift: up to 2 pixels"
    )
    val_share: float = Field(
        0.1,
        gt=0,
        lt=0.9,
        description="share of the training images that chooses, where no split is there for it",
    )
    root: str | None = Field(None, description="folder of a torchvision data set")
    download: bool = Field(False, description="let torchvision fetch a data set that is not there")
    limit: Positive | None = Field(
        None, description="at most this many images of each split of the source, for a quick try"
    )
    shape: tuple[Positive, Positive, Positive] | None = Field(
        None, description="channels, height and width of what the network takes, where no data tell"
    )
    eval: str | None = Field(None, description="real data that judge and teach nothing, where source is none")
    synthesis: Synthesis | None = Field(None, description="how images are made where there are no data")
    controls: tuple[str, ...] = Field(
        (),
        description="noise, images:FOLDER: the student learns from these as well, to be reported beside the made ones",
    )

    @field_validator("source")
    @classmethod
    def _named(cls, source: str) -> str:
        return "generated" if source == "none" else source

    @field_validator("controls")
    @classmethod
    def _are_controls(cls, controls: tuple[str, ...]) -> tuple[str, ...]:
        for source in controls:
            kind = kind_of(source)
            if kind is None or kind[0] not in CONTROLS:
                raise ValueError(f"{source!r} is no control: take noise, images:FOLDER, or both")
        return controls

    @model_validator(mode="after")
    def _means_something(self) -> "DataSettings":
        """Keys for want of data, beside data, would do nothing."""
        idle = [name for name in ("shape", "eval", "synthesis", "controls") if getattr(self, name) not in (None, ())]
        if idle and self.is_real:
            raise ValueError(f"{' and '.join(idle)} is for source none, and this source, {self.source}, has data")
        kind = kind_of(self.source)
        made_by = TAKES.get(kind[0]) if kind else None
        if made_by is not None and self.synthesis is not None and self.synthesis.method not in made_by:
            raise ValueError(
                f"synthesis.method {self.synthesis.method} makes nothing where source is {self.source}: its method is "
                f"{' or '.join(made_by)}, and source generated takes any"
            )
        return self

    @property
    def is_real(self) -> bool:
        """Whether the source holds data of the task; else images are made, or taken from elsewhere."""
        return kind_of(self.source) is None
