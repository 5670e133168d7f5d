"""Make a trained PyTorch model fast on a real edge device, and prove it."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "compress", "measure"]

if TYPE_CHECKING:
    from .pipeline.api import compress as compress
    from .targets.measure import measure as measure


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: `import edgepress` costs nothing."""
    if name == "compress":
        from .pipeline.api import compress

        return compress
    if name == "measure":
        from .targets.measure import measure

        return measure
    raise AttributeError(f"module 'edgepress' has no attribute {name!r}")
