"""Windows of sound through the encoder of a Whisper: on a GPU a batch at once, on the CPU one after the other."""

from typing import TYPE_CHECKING

import numpy as np

from stages.ctranslate2_model import in_host_memory

if TYPE_CHECKING:
    import torch
    from ctranslate2 import StorageView
    from ctranslate2.models import Whisper


def encode_windows(model: "Whisper", features: "torch.Tensor") -> "StorageView":
    """float32 [n, mels, 3000] on the model's device → [n, 1500, width], there.

    Attention holds heads x 1500 x 1500 numbers of a window: 108 MB of the small model, and of all windows of a batch as
    much each. On the CPU that is far beyond its caches, and a window has steps enough to keep a core busy: what the
    encoder gives does not depend on neighbours.
    """
    import ctranslate2

    if features.is_cuda:
        import torch

        torch.cuda.current_stream(features.device).synchronize()  # CTranslate2 reads it in a stream of its own
        return model.encode(ctranslate2.StorageView.from_array(features))
    windows = np.split(features.numpy(), len(features))
    encoded = [in_host_memory(model.encode(ctranslate2.StorageView.from_array(window))) for window in windows]
    return ctranslate2.StorageView.from_array(np.concatenate(encoded))
