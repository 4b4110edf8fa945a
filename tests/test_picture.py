"""Scaling, turning, cropping and colours of single frames."""

import struct

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace, VideoReformatter
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.picture import (
    INTERPOLATION,
    PLANES,
    Orientation,
    PictureMaker,
    centre_crop,
    interleaved,
    orientation,
    scaled_size,
    turn,
)
from stages.sampling import BadPictureError
from transport.messages import FrameFormat

SQUARE = FrameFormat(width=32, height=32, fit="crop")
sizes = st.integers(2, 4096)
PIXEL_FORMATS = (
    "rgb24", "bgr24", "gbrp", "gray", "yuv420p", "yuv422p", "yuvj420p", "nv12", "yuv444p10le", "yuv420p10le",
    "rgba", "rgb8",
)  # fmt: skip


def matrix(a: int, b: int, c: int, d: int) -> bytes:
    return struct.pack("<9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


def yuv_frame(
    yuv: tuple[int, int, int], width: int = 64, height: int = 64, pixel_format: str = "yuv444p"
) -> "av.VideoFrame":
    planes = np.stack([np.full((height, width), value, np.uint8) for value in yuv])
    return av.VideoFrame.from_ndarray(planes, pixel_format)


def test_an_iphone_held_upright_is_turned_clockwise() -> None:
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    how = orientation(matrix(0, 1, -1, 0))
    assert (turn(stored, how) == np.rot90(stored, -1)).all()


@pytest.mark.parametrize(
    ("linear", "quarters_clockwise"), [((1, 0, 0, 1), 0), ((0, 1, -1, 0), 1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 3)]
)
def test_quarter_turns(linear: tuple[int, int, int, int], quarters_clockwise: int) -> None:
    stored = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    how = orientation(matrix(*linear))
    assert not how.mirrored
    assert (turn(stored, how) == np.rot90(stored, -quarters_clockwise)).all()


def test_a_mirrored_picture_is_mirrored_back() -> None:
    stored = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    how = orientation(matrix(-1, 0, 0, 1))
    assert how.mirrored
    assert (turn(stored, how) == stored[:, ::-1]).all()


@pytest.mark.parametrize("data", [None, b"", b"short"])
def test_no_matrix_is_no_turn(data: bytes | None) -> None:
    assert orientation(data) == Orientation()


@given(sizes, sizes, st.floats(0.1, 10), st.booleans(), sizes, sizes)
def test_the_scaled_picture_covers_the_format_and_keeps_the_aspect(
    width: int, height: int, aspect: float, transposed: bool, target_width: int, target_height: int
) -> None:
    crop = FrameFormat(width=target_width, height=target_height, fit="crop")
    scaled = scaled_size(width, height, aspect, transposed, crop)
    shown = scaled[::-1] if transposed else scaled
    upright = (height, width * aspect) if transposed else (width * aspect, height)
    assert shown[0] >= target_width
    assert shown[1] >= target_height
    assert shown[0] == target_width or shown[1] == target_height
    factor = max(target_width / upright[0], target_height / upright[1])
    assert abs(shown[0] - upright[0] * factor) <= 1
    assert abs(shown[1] - upright[1] * factor) <= 1


def test_stretch_gives_the_format_whatever_the_shape() -> None:
    stretch = FrameFormat(width=384, height=200, fit="stretch")
    assert scaled_size(1920, 1080, 1.5, False, stretch) == (384, 200)
    assert scaled_size(1920, 1080, 1.5, True, stretch) == (200, 384)


def test_the_crop_is_in_the_middle_and_contiguous() -> None:
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    assert (centre_crop(pixels, 3, 1) == pixels[2:3, 2:5]).all()
    made = PictureMaker(SQUARE, 1.0, 10**6)(av.VideoFrame.from_ndarray(pixels, "rgb24"))
    assert made.shape == (32, 32, 3)
    assert made.flags.c_contiguous
    assert made.flags.owndata  # a view would keep the whole scaled picture


def textured(pixel_format: str) -> "av.VideoFrame":
    """Blocks of chance colours, 1000x750: coarse enough that every pixel format holds them."""
    blocks = np.random.default_rng(7).integers(0, 256, (25, 20, 3), np.uint8)
    picture = np.ascontiguousarray(blocks.repeat(30, 0).repeat(50, 1))
    return av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixel_format)


@pytest.mark.parametrize("width", [224, 225])
@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_planes_hold_the_same_numbers_as_packed_rgb(pixel_format: str, width: int) -> None:
    frame, scaler = textured(pixel_format), VideoReformatter()

    def scaled(target: str) -> "av.VideoFrame":
        return scaler.reformat(frame, width, 168, target, Colorspace.ITU601, interpolation=INTERPOLATION, threads=1)

    assert (interleaved(scaled(PLANES), Orientation(), width, 168) == scaled("rgb24").to_ndarray()).all()


@pytest.mark.parametrize("how", [Orientation(), Orientation(True, True, False), Orientation(False, True, True)])
def test_planes_are_turned_and_cropped_like_pictures(how: Orientation) -> None:
    pixels = np.random.default_rng(8).integers(0, 256, (40, 50, 3), np.uint8)
    planes = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=PLANES)
    assert (interleaved(planes, how, 20, 30) == centre_crop(turn(pixels, how), 20, 30)).all()


# Y'CbCr of pure red, by the matrices of ITU-T H.273: (limited range, full range)
RED: dict[int, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    1: ((63, 102, 240), (54, 99, 255)),  # BT.709
    5: ((81, 90, 240), (76, 85, 255)),  # BT.601
    9: ((74, 97, 240), (67, 92, 255)),  # BT.2020
}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("colourspace", RED)
def test_matrix_and_range_are_honoured(colourspace: int, full: bool) -> None:
    frame = yuv_frame(RED[colourspace][full])
    frame.colorspace, frame.color_range = colourspace, 2 if full else 1
    pixels = PictureMaker(SQUARE, 1.0, 10**6)(frame)
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize(("width", "height", "colourspace"), [(640, 480, 5), (1280, 720, 1)])
def test_an_unsaid_matrix_is_taken_for_that_of_the_size(width: int, height: int, colourspace: int) -> None:
    pixels = PictureMaker(SQUARE, 1.0, 10**6)(yuv_frame(RED[colourspace][False], width, height))
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_pixel_formats_come_out_as_rgb(pixel_format: str) -> None:
    grey = av.VideoFrame.from_ndarray(np.full((50, 66, 3), 120, np.uint8), "rgb24")
    pixels = PictureMaker(SQUARE, 1.0, 10**6)(grey.reformat(format=pixel_format))
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - 120).max() <= (24 if pixel_format == "rgb8" else 3)


def test_downscaling_averages() -> None:
    """A fine checkerboard becomes grey, not a pattern of the samples that were hit."""
    board: NDArray[np.uint8] = (np.indices((1024, 1024)).sum(0) % 2 * 255).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(np.repeat(board[..., None], 3, 2), "rgb24")
    pixels = PictureMaker(SQUARE, 1.0, 10**7)(frame)
    assert np.abs(pixels.astype(int) - 127).max() <= 3


def test_wide_pixels_are_shown_wide() -> None:
    """A white square stored in pixels twice as wide as high is shown as a wide bar."""
    stored = np.zeros((64, 64, 3), np.uint8)
    stored[24:40, 24:40] = 255
    pixels = PictureMaker(FrameFormat(width=128, height=64, fit="crop"), 2.0, 10**6)(
        av.VideoFrame.from_ndarray(stored, "rgb24")
    )
    lit = pixels[..., 0] > 127
    assert lit.any(0).sum() == 32
    assert lit.any(1).sum() == 16


@pytest.mark.parametrize(("width", "height"), [(200, 200), (2, 4000)])
def test_too_many_pixels_are_refused_before_and_after_scaling(width: int, height: int) -> None:
    frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), "rgb24")
    with pytest.raises(BadPictureError, match=r"too-many-pixels: .*decode\.max_pixels = 30000"):
        PictureMaker(SQUARE, 1.0, 30_000)(frame)
