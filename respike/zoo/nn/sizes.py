"""Sizes: which images a network takes. Loads no torch, so that a size is refused before anything is opened."""

from respike.errors import SettingError

SIZE_STEP = 32  # both branches halve an image five times


def nearest_sizes(side: int) -> str:
    """The sizes in pixels next to one that a network does not take: `64 or 96`."""
    below = side // SIZE_STEP * SIZE_STEP
    return f"{below} or {below + SIZE_STEP}" if below > 0 else f"{SIZE_STEP}"


def is_size(side: int) -> bool:
    """Whether a network takes images that are `side` pixels high or wide."""
    return side > 0 and side % SIZE_STEP == 0


def check_image_size(height: int, width: int) -> None:
    """Raise SettingError that names the nearest two sizes, unless both sides are multiples of 32."""
    for side in (height, width):
        if not is_size(side):
            raise SettingError(
                f"images are {height}×{width} (height × width), allowed are multiples of {SIZE_STEP}",
                f"for {side} take {nearest_sizes(side)}",
            )
