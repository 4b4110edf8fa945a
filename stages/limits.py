"""What files may hold: containers and codecs that are opened, and those that are not.

Lists of what is allowed, not of what is forbidden: FFmpeg knows some 360 demuxers and 500 decoders, and most of its
vulnerabilities are in those that nobody needs (game formats, picture sequences, playlists). docs/formats.md says what
is left out and why. Names are FFmpeg's: of demuxers for FORMATS, of codecs (as ffprobe prints them) for the others.
"""

import functools

import av
from av.codec import Codec

# fmt: off
FORMATS: frozenset[str] = frozenset({
    # with pictures
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf",
    "gxf", "rm", "dv", "wtv", "nut", "ivf",
    # sound alone
    "mp3", "wav", "w64", "flac", "aac", "loas", "ac3", "eac3", "dts", "dtshd", "truehd", "aiff", "caf", "au", "amr",
    "amrnb", "amrwb", "ape", "tta", "wv", "mpc", "mpc8", "tak", "dsf",
})

VIDEO_CODECS: frozenset[str] = frozenset({
    "h264", "hevc", "vvc", "av1", "vp8", "vp9", "vp7", "vp6", "vp6a", "vp6f", "vp3", "theora",
    "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h261", "h263", "h263p", "flv1",
    "wmv1", "wmv2", "wmv3", "vc1", "rv10", "rv20", "rv30", "rv40", "svq1", "svq3", "cinepak", "indeo3", "indeo4",
    "indeo5", "mjpeg", "dvvideo", "prores", "dnxhd", "cfhd", "jpeg2000", "ffv1", "huffyuv", "ffvhuff", "utvideo",
    "rawvideo", "v210", "qtrle",
})

AUDIO_CODECS: frozenset[str] = frozenset({
    "aac", "aac_latm", "mp1", "mp2", "mp3", "ac3", "eac3", "dts", "truehd", "mlp", "opus", "vorbis", "flac", "alac",
    "wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice", "amr_nb", "amr_wb", "gsm", "gsm_ms", "speex", "nellymoser",
    "cook", "sipr", "ra_144", "ra_288", "ralf", "atrac3", "atrac3p", "qdm2", "ape", "tta", "wavpack", "musepack7",
    "musepack8", "tak", "dsd_lsbf", "dsd_msbf", "dsd_lsbf_planar", "dsd_msbf_planar", "s302m", "ilbc", "g723_1",
    "adpcm_g722", "adpcm_g726", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_swf", "adpcm_yamaha",
    "pcm_alaw", "pcm_mulaw", "pcm_bluray", "pcm_dvd", "pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le",
    "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_s16le_planar",
    "pcm_s16be_planar", "pcm_s24le_planar", "pcm_s32le_planar",
})

CAPTION_CODECS: frozenset[str] = frozenset({"subrip", "webvtt", "ass", "mov_text", "text"})  # text, not pictures
# fmt: on

_HARDWARE = ("_cuvid", "_qsv", "_amf", "_v4l2m2m", "_mediacodec", "_videotoolbox")


@functools.cache
def decoder_names() -> str:
    """Comma-separated names of the software decoders of all allowed codecs: FFmpeg's `codec_whitelist`.

    A codec can have several decoders (mp3 and mp3float; libdav1d and av1), which is why the list is made, not written.
    """
    allowed = VIDEO_CODECS | AUDIO_CODECS | CAPTION_CODECS
    names = (name for name in sorted(av.codecs_available) if not name.endswith(_HARDWARE))
    return ",".join(name for name in names if _codec_of(name) in allowed)


def _codec_of(decoder: str) -> str | None:
    try:
        return str(Codec(decoder, "r").canonical_name)
    except av.codec.codec.UnknownCodecError:  # it is an encoder only
        return None
