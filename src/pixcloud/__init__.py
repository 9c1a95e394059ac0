"""PixCloud: 3D point-cloud encoders learned without labels, from shapes and pictures of them."""

from pixcloud._version import __version__

__all__ = ["__version__"]
