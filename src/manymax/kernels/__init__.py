"""What makes the rooms fast. Rooms call it; it never imports a room."""

from manymax.kernels.native import status

__all__ = ["status"]
