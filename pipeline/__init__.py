"""Learn from brain MRI: precompute once, train from latents. From Python: `open_study`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.python_api.study_folder import StudyFolder, open_study

__version__ = "0.1.0"
__all__ = ["StudyFolder", "__version__", "open_study"]


def __getattr__(name: str) -> Any:
    """Import what Python users ask for when they ask: pandas and zarr take a second."""
    if name in ("StudyFolder", "open_study"):
        from pipeline.python_api import study_folder

        return getattr(study_folder, name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
