"""Centre a cut-out object on a square canvas (spec section 2)."""

from __future__ import annotations

from PIL import Image

from dream_cad.exceptions import InvalidConfigError

BORDER_RATIO = 0.2
_CLEAR_WHITE = (255, 255, 255, 0)


def recentre(image: Image.Image, *, border_ratio: float = BORDER_RATIO) -> Image.Image:
    """Crop an RGBA picture to what is not transparent and put it on a clear white square.

    Args:
        image: RGBA; RGB comes back as it is, and every other mode as RGB.
        border_ratio: border on each side over the side of the crop.

    Raises:
        InvalidConfigError: everything is transparent.
    """
    if image.mode != "RGBA":
        return image if image.mode == "RGB" else image.convert("RGB")
    box = image.getchannel("A").getbbox()
    if box is None:
        raise InvalidConfigError(
            "The picture is transparent everywhere; an object was expected.",
            hint="Send a picture that shows the object.",
        )
    crop = image.crop(box)
    across, down = int(crop.width * border_ratio), int(crop.height * border_ratio)
    width, height = crop.width + 2 * across, crop.height + 2 * down
    side = max(width, height)
    canvas = Image.new("RGBA", (side, side), _CLEAR_WHITE)
    canvas.paste(crop, ((side - width) // 2 + across, (side - height) // 2 + down))
    return canvas
