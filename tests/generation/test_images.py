"""First frames that a user gives: found, upright, of the model's size, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svdtrain.foundation.errors import DataError
from svdtrain.generation.images import find_images, read_image
from tests.tiny_runs import save_picture


def test_a_folder_gives_its_pictures_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.webp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "deeper").mkdir()
    assert [path.name for path in find_images(str(tmp_path))] == ["a.JPG", "b.png", "c.webp"]
    assert find_images(str(tmp_path / "notes.txt")) == [tmp_path / "notes.txt"], "what is named is tried"


@pytest.mark.parametrize(("place", "said"), [("nothing.png", "no such file or folder"), ("empty", "holds no pictures")])
def test_no_pictures_is_an_error(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=said) as caught:
        find_images(str(tmp_path / place))
    assert place in caught.value.message


def test_a_picture_of_the_right_size_is_read_to_the_bit(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", 24, 40)
    assert np.array_equal(np.asarray(read_image(path, 24, 40)), np.asarray(Image.open(path)))


@pytest.mark.parametrize(("size", "expected"), [((40, 80), 20), ((80, 40), 20), ((30, 30), 0), ((400, 800), 200)])
def test_other_sizes_are_covered_and_cropped_at_the_centre(
    tmp_path: Path, size: tuple[int, int], expected: int
) -> None:
    """Red in the middle square, blue in what a centre crop must lose."""
    height, width = size
    pixels_HWC = np.zeros((height, width, 3), np.uint8)
    pixels_HWC[..., 2] = 255
    side = min(size)
    top, left = (height - side) // 2, (width - side) // 2
    assert max(top, left) == expected
    pixels_HWC[top : top + side, left : left + side] = (255, 0, 0)
    Image.fromarray(pixels_HWC).save(tmp_path / "a.png")
    read_HWC = np.asarray(read_image(tmp_path / "a.png", 20, 20))
    assert read_HWC.shape == (20, 20, 3)
    assert (read_HWC[4:-4, 4:-4] == (255, 0, 0)).all(), "the resampling filter sees a little beyond the edge"
    assert (read_HWC[..., 0] > 200).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_stands_upright(tmp_path: Path, orientation: int) -> None:
    """A camera stores turned pixels and says by EXIF how: the bright corner must come out at the top left."""
    upright = Image.new("RGB", (40, 20))
    upright.paste((255, 255, 255), (0, 0, 10, 5))
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for turn in undo.get(orientation, []):
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png", 20, 40)), np.asarray(upright))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK", "LA"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.new(mode, (16, 16))
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(path)
    assert read_image(path, 8, 8).mode == "RGB"


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "huge"])
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_picture(tmp_path / "bad.png", 64, 64)
    if kind == "text":
        path.write_text("not a picture")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"image=.*bad\.png: ") as caught:
        read_image(path, 32, 32)
    assert "\n" not in caught.value.message
