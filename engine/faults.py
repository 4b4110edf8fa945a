"""What went wrong on the device, told from what the libraries raise."""

# What the libraries below torch say when memory is gone: they raise a plain RuntimeError.
OUT_OF_MEMORY_TEXTS = (
    "out of memory",  # torch, and CTranslate2: "CUDA failed with error out of memory"
    "CUBLAS_STATUS_ALLOC_FAILED",  # "cuBLAS failed with status …"
    "CUBLAS_STATUS_NOT_INITIALIZED",  # what cuBLAS says when there is no room for its own workspace
    "std::bad_alloc",
    "mkl_malloc: failed to allocate",  # CTranslate2 on the CPU
    "could not create a memory object",  # oneDNN on the CPU
)

# Errors after which every further call on the context fails, too (CUDA Runtime API, section "Error handling": "the
# process must be terminated and relaunched"), in the words of cudaGetErrorString, and those of a device that is gone.
DEVICE_LOST_TEXTS = (
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "misaligned address",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "unspecified launch failure",
    "device-side assert triggered",
    "the launch timed out and was terminated",
    "hardware stack error",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error",
    "GPU is lost",
    "device is lost",
    "no CUDA-capable device is detected",
    "CUDA-capable device(s) is/are busy or unavailable",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
)


class DeviceLostError(Exception):
    """The context is poisoned, or the device is gone: no further call can succeed in this process."""

    def __init__(self, message: str, inputs: tuple[object, ...]) -> None:
        super().__init__(message)
        self.inputs = inputs  # the batch that was running


class RecycleError(Exception):
    """Memory does not come back from the libraries in this process: a fresh process has it all."""

    def __init__(self, message: str, inputs: tuple[object, ...]) -> None:
        super().__init__(message)
        self.inputs = inputs  # what did not fit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library's exception means that device (or host) memory is gone.

    torch raises torch.OutOfMemoryError, a RuntimeError whose text holds "out of memory"; CTranslate2 and cuBLAS raise a
    plain RuntimeError known only by its text.
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY_TEXTS)


def is_device_lost(error: BaseException) -> bool:
    """Whether a library's exception means that this process can do nothing more on the device.

    torch raises torch.AcceleratorError, a RuntimeError; CTranslate2 a RuntimeError known by its text.
    """
    return isinstance(error, RuntimeError) and any(text in str(error) for text in DEVICE_LOST_TEXTS)


def first_line(error: BaseException) -> str:
    """The type of an exception and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
