"""What a tensor is here: an address, a dtype, a shape, strides, a device. PyTorch's tensors, numpy's arrays."""

from __future__ import annotations

import importlib
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

_TORCH_DTYPES: dict[Any, str] = {}


def _torch_dtype_name(dtype: Any) -> str:
    name = _TORCH_DTYPES.get(dtype)
    if name is None:
        name = _TORCH_DTYPES[dtype] = str(dtype).removeprefix("torch.")
    return name


def is_torch(tensor: Tensor) -> bool:
    """Whether this is a torch.Tensor."""
    return torch is not None and isinstance(tensor, torch.Tensor)


def is_numpy(tensor: Tensor) -> bool:
    """Whether this is a numpy.ndarray."""
    return numpy is not None and isinstance(tensor, numpy.ndarray)


def require_tensor(tensor: Tensor, name: str) -> None:
    """Raises InvalidArgument unless the argument is a tensor with memory."""
    if not (is_torch(tensor) or is_numpy(tensor)):
        raise invalid(f"{name} is a {type(tensor).__name__}", "a torch.Tensor or a numpy.ndarray", f"convert {name}")


def view(tensor: Tensor) -> _native.View:
    """The tensor as the native module takes it. Copies nothing."""
    if is_torch(tensor):
        return tensor.data_ptr(), _torch_dtype_name(tensor.dtype), tuple(tensor.shape), tensor.stride()
    size = tensor.itemsize
    return tensor.ctypes.data, tensor.dtype.name, tensor.shape, tuple(stride // size for stride in tensor.strides)


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


def share_device(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether all three are torch tensors of one device: the usual case, cheaper to see than require_same_device."""
    if not (is_torch(q) and is_torch(k) and is_torch(v)):
        return False
    return bool(q.device == k.device == v.device)


def require_same_device(device: tuple[str, int], tensors: dict[str, Tensor]) -> None:
    """Raises InvalidArgument, naming the tensor that is elsewhere. See share_device for the usual case."""
    for name, tensor in tensors.items():
        if device_of(tensor) != device:
            raise invalid(
                f"{name} is on {':'.join(map(str, device_of(tensor)))} and q on {':'.join(map(str, device))}",
                "one device for all tensors of a call",
                f"move {name}",
            )


def empty_like(tensor: Tensor) -> Tensor:
    """Uninitialised, dense, in the given tensor's order of dimensions in memory."""
    if is_torch(tensor):
        return torch.empty_like(tensor, requires_grad=False)
    return numpy.empty_like(tensor, order="K")


def empty_float32(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uninitialised and contiguous, on the given tensor's device."""
    if is_torch(like):
        return torch.empty(shape, dtype=torch.float32, device=like.device)
    return numpy.empty(shape, dtype=numpy.float32)


def current_stream(device: tuple[str, int]) -> int:
    """The handle of PyTorch's current stream on this device; 0 on the CPU."""
    if device[0] != "cuda":
        return 0
    if _raw_stream is not None:
        return int(_raw_stream(device[1]))
    handle: int = torch.cuda.current_stream(device[1]).cuda_stream
    return handle
