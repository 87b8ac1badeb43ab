"""What a tensor is here: PyTorch's tensors, numpy's arrays, on the CPU or a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from . import _native
from .errors import invalid


# Both are optional: a call needs the one whose tensors it is given.
def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


torch = _optional("torch")
numpy = _optional("numpy")

# What torch.cuda.current_stream wraps in an object, without the object. Not a public name of PyTorch's, so optional.
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None) if torch is not None else None

# A torch.Tensor or a numpy.ndarray.
Tensor = Any


def is_torch(tensor: Tensor) -> bool:
    """Whether this is a torch.Tensor."""
    return torch is not None and isinstance(tensor, torch.Tensor)


def is_numpy(tensor: Tensor) -> bool:
    """Whether this is a numpy.ndarray."""
    return numpy is not None and isinstance(tensor, numpy.ndarray)


def require_tensors(**tensors: Tensor) -> None:
    """Raises InvalidArgument unless the arguments are tensors with memory."""
    for name, tensor in tensors.items():
        if not (is_torch(tensor) or is_numpy(tensor)):
            raise invalid(
                f"{name} is a {type(tensor).__name__}", "a torch.Tensor or a numpy.ndarray", f"convert {name}"
            )


def require_torch(**tensors: Tensor) -> None:
    """Raises InvalidArgument unless the arguments are PyTorch's tensors, as q is."""
    for name, tensor in tensors.items():
        if not is_torch(tensor):
            raise invalid(
                f"{name} is a {type(tensor).__name__}", "torch.Tensors, or numpy.ndarrays alone", "convert it"
            )


def operand(tensor: Tensor) -> _native.Operand:
    """The tensor as the native module takes it. Copies nothing."""
    if is_numpy(tensor):
        size = tensor.itemsize
        return tensor.ctypes.data, tensor.dtype.name, tensor.shape, tuple(stride // size for stride in tensor.strides)
    return tensor


def optional_operand(tensor: Tensor | None) -> _native.Operand | None:
    """The same; None stays None."""
    return None if tensor is None else operand(tensor)


def device_of(tensor: Tensor) -> tuple[str, int]:
    """("cuda", ordinal) or ("cpu", 0). Raises InvalidArgument for other devices."""
    if not is_torch(tensor):
        return "cpu", 0
    device = tensor.device
    if device.type == "cuda":
        return "cuda", device.index
    if device.type == "cpu":
        return "cpu", 0
    raise invalid(f"a tensor is on device {device}", "cuda and cpu", "move it there")


def require_on_cpu(**tensors: Tensor | None) -> None:
    """Raises InvalidArgument, naming the tensor that is elsewhere. For a GPU the library itself asks the driver."""
    for name, tensor in tensors.items():
        if tensor is not None and device_of(tensor) != ("cpu", 0):
            raise invalid(
                f"{name} is on {tensor.device} and q on cpu", "one device for all tensors of a call", f"move {name}"
            )


def empty_like(tensor: Tensor) -> Tensor:
    """Uninitialised, dense, in the given tensor's order of dimensions in memory."""
    if is_torch(tensor):
        return torch.empty_like(tensor)
    return numpy.empty_like(tensor, order="K")


def empty(shape: tuple[int, ...], dtype: str, like: Tensor) -> Tensor:
    """Uninitialised and contiguous, on the given tensor's device. dtype: a name that torch and numpy share."""
    if is_torch(like):
        return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)
    return numpy.empty(shape, dtype=dtype)


def empty_of_type(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uninitialised and contiguous, of the given tensor's type and on its device."""
    return like.new_empty(shape) if is_torch(like) else numpy.empty(shape, dtype=like.dtype)


def zeros(shape: tuple[int, ...], dtype: str, like: Tensor) -> Tensor:
    """As empty, filled with zeros."""
    filled = empty(shape, dtype, like)
    filled[...] = 0
    return filled


class Allocate:
    """Memory on a tensor's device, as the native module asks for it; keeps the last tensor of bytes."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.memory: Tensor | None = None

    def __call__(self, size: int) -> tuple[int, Tensor]:
        self.memory = memory = empty((size,), "uint8", self.like)
        return (memory.data_ptr() if is_torch(memory) else memory.ctypes.data), memory


def _current_stream(ordinal: int) -> int:
    handle: int = torch.cuda.current_stream(ordinal).cuda_stream
    return handle


# The handle of PyTorch's current stream on the GPU of this ordinal.
current_stream: Callable[[int], int] = _raw_stream or _current_stream
