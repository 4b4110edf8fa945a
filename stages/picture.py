"""A decoded frame becomes pixels for the image model: scaled, upright, cropped, RGB.

Everything happens in one pass of swscale, which also converts the colours; turning and cropping are done on its small
result.
"""

import functools
from typing import NamedTuple

import av
import av.video.frame
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from stages.sampling import BadPictureError
from transport.messages import FrameFormat

# Bicubic is what CLIP and SigLIP were trained with. swscale widens its filter by the scale factor, so that a 1080p
# picture is averaged down, not sampled. The two flags cost 5 % and avoid half-resolution chroma and biased rounding.
INTERPOLATION = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
# swscale writes planes twice as fast as rgb24, for which it has no vector code: the same numbers, bit by bit.
PLANES, _RGB_PLANES = "gbrp", (2, 0, 1)

_MATRICES = {  # AVColorSpace, ITU-T H.273 table 4, to swscale's name of it
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


class Orientation(NamedTuple):
    """How a stored picture is brought upright: first transposed, then mirrored."""

    transpose: bool = False
    flip_horizontal: bool = False
    flip_vertical: bool = False

    @property
    def mirrored(self) -> bool:
        """More than a turn: left and right are exchanged."""
        return (self.transpose + self.flip_horizontal + self.flip_vertical) % 2 == 1


def orientation(matrix: bytes | None) -> Orientation:
    """Read a display matrix: nine int32, the linear part in 16.16 fixed point (ISO/IEC 14496-12, 8.3.2).

    Angles between the quarter turns are rounded to the nearest one.
    """
    if matrix is None or len(matrix) < 36:
        return Orientation()
    a, b, _, c, d = np.frombuffer(matrix, np.int32, count=5).tolist()  # x' = a x + c y, y' = b x + d y
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def scaled_size(
    width: int, height: int, pixel_aspect: float, transposed: bool, frame_format: FrameFormat
) -> tuple[int, int]:
    """Width and height, in the stored orientation, to which a frame is scaled before it is turned and cropped.

    crop: the upright picture just covers the format, as in CLIP's preprocessing; stretch: it equals the format.
    """
    target_width, target_height = frame_format.width, frame_format.height
    if frame_format.fit == "crop":
        shown_width = width * pixel_aspect
        upright = (height, shown_width) if transposed else (shown_width, height)
        factor = max(target_width / upright[0], target_height / upright[1])
        target_width = max(target_width, round(upright[0] * factor))
        target_height = max(target_height, round(upright[1] * factor))
    return (target_height, target_width) if transposed else (target_width, target_height)


def turn(pixels: NDArray[np.uint8], how: Orientation) -> NDArray[np.uint8]:
    """Bring pixels [h, w, 3], or one plane of them [h, w], upright; a view."""
    if how.transpose:
        pixels = pixels.swapaxes(0, 1)
    if how.flip_horizontal:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if how.flip_vertical else pixels


def centre_crop(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The middle [height, width, …] of pixels [h, w, …]; a view."""
    top = (pixels.shape[0] - height) // 2
    left = (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def interleaved(scaled: "av.video.frame.VideoFrame", how: Orientation, width: int, height: int) -> NDArray[np.uint8]:
    """The middle of a picture in PLANES, upright: uint8 RGB [height, width, 3], C-contiguous."""
    pixels = np.empty((height, width, 3), np.uint8)
    for channel, index in enumerate(_RGB_PLANES):
        plane = scaled.planes[index]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width]
        pixels[..., channel] = centre_crop(turn(rows, how), width, height)
    return pixels


class PictureMaker:
    """Turns the frames of one stream into pixels. Holds one scaler, and no frame."""

    def __init__(self, frame_format: FrameFormat, pixel_aspect: float, max_pixels: int) -> None:
        self.frame_format = frame_format
        self._pixel_aspect = pixel_aspect
        self._max_pixels = max_pixels
        self._scaler = VideoReformatter()
        self._turned: tuple[int, Orientation] | None = None  # how frames of that rotation are brought upright

    def __call__(self, frame: "av.video.frame.VideoFrame") -> NDArray[np.uint8]:
        """Pixels of a frame: uint8 RGB [height, width, 3], C-contiguous.

        Raises:
            BadPictureError: swscale cannot convert it; or it, or its scaled form, exceeds max_pixels.
        """
        how, (width, height) = self.layout(frame)
        try:
            scaled = self._scaler.reformat(
                frame,
                width,
                height,
                PLANES,
                src_colorspace=_matrix_of(frame),
                interpolation=INTERPOLATION,
                threads=1,
            )
        except av.FFmpegError as error:
            raise BadPictureError(f"corrupt: a frame cannot be converted to RGB: {error.strerror}") from error
        return interleaved(scaled, how, self.frame_format.width, self.frame_format.height)

    def layout(self, frame: "av.video.frame.VideoFrame") -> tuple[Orientation, tuple[int, int]]:
        """How a frame is turned, and the width and height to which it is scaled before.

        Raises:
            BadPictureError: it, or its scaled form, exceeds max_pixels.
        """
        how = self._orientation_of(frame)
        size = scaled_size(frame.width, frame.height, self._pixel_aspect, how.transpose, self.frame_format)
        if max(frame.width * frame.height, size[0] * size[1]) > self._max_pixels:
            shape = f"{frame.width}x{frame.height}"
            raise BadPictureError(
                f"too-many-pixels: a frame of {shape} takes more than decode.max_pixels = {self._max_pixels}"
            )
        return how, size

    def _orientation_of(self, frame: "av.video.frame.VideoFrame") -> Orientation:
        """Looks at the display matrix only when the rotation changes: `frame.side_data` makes a reference cycle, and
        with it a frame of 3 MB stays in memory until the garbage collector happens to run.
        """
        if self._turned is None or self._turned[0] != frame.rotation:
            self._turned = (frame.rotation, orientation(_display_matrix(frame)))
        return self._turned[1]


def _display_matrix(frame: "av.video.frame.VideoFrame") -> bytes | None:
    data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    return None if data is None else bytes(data)


def _matrix_of(frame: "av.video.frame.VideoFrame") -> Colorspace | None:
    """The YUV matrix of a frame; where it is not said, BT.709 for HD and BT.601 below, as players assume."""
    if _is_rgb(frame.format.name):
        return None
    known = _MATRICES.get(frame.colorspace)
    if known is not None:
        return known
    return Colorspace.ITU709 if frame.height >= 720 or frame.width >= 1280 else Colorspace.ITU601


@functools.lru_cache(maxsize=32)
def _is_rgb(pixel_format: str) -> bool:
    return bool(av.VideoFormat(pixel_format).is_rgb)
