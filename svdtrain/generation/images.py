"""Pictures that a user gives as first frames."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from svdtrain.foundation.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""Others Pillow may hand to programs: PostScript to Ghostscript."""


def find_images(place: str) -> list[Path]:
    """A picture, or the pictures of a folder in order of name. Raises DataError when there are none."""
    path = Path(place)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"image={place}: no such file or folder", "image=PICTURE or image=FOLDER")
    images = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not images:
        raise DataError(f"image={place}: the folder holds no pictures", f"wanted: {', '.join(SUFFIXES)}")
    return images


def read_image(path: Path, height: int, width: int) -> Image.Image:
    """RGB, upright, scaled to cover height x width and cropped at the centre. Raises DataError for what is no picture."""
    try:
        with Image.open(path, formats=FORMATS) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise DataError(f"image={path}: {reason}", f"wanted: a readable {', '.join(SUFFIXES)} file") from error
    return fitted(picture, height, width)


def fitted(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Scaled to cover height x width and cropped at the centre."""
    if picture.size == (width, height):
        return picture
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
