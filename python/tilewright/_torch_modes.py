"""What of PyTorch's state decides how a call goes: through a registered operator, with gradients, in another type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from .errors import Unsupported

is_compiling = torch.compiler.is_compiling
is_grad_enabled = torch.is_grad_enabled

# A dispatch mode (fake tensors, a tracer, a FLOP counter) or a function transform (torch.func) wants to see the
# operator. Neither is a public name of PyTorch's, so optional.
_modes_in_force: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)
_transform_in_force: Callable[[], Any] = getattr(
    getattr(torch._C, "_functorch", None), "peek_interpreter_stack", lambda: None
)

# One library for all operators: its operators live as long as it does.
library = torch.library.Library("tilewright", "DEF")
_EXACT_STRIDES = getattr(torch.Tag, "needs_exact_strides", torch.Tag.needs_fixed_stride_order)
_DEVICES = ("CPU", "CUDA")


def define(name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Registers an operator: its schema, what runs on the CPU and GPUs, and what fake tensors get. Returns it.

    torch.library.custom_op does as much with more Python around each call.
    """
    library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag, _EXACT_STRIDES))
    for device in _DEVICES:
        library.impl(name, run, device)
    torch.library.register_fake(f"tilewright::{name}", fake, lib=library)
    return getattr(torch.ops.tilewright, name).default


below_autograd = torch._C._AutoDispatchBelowAutograd


def unless_seen(operator: Any, run: Callable[..., Any], *, inputs: int) -> Callable[..., Any]:
    """The operator below autograd, or what it runs, called directly where nothing would see the dispatcher do so.

    inputs: the first arguments, whose types tell.
    """

    def call(*arguments: Any) -> Any:
        if sees_operators(arguments[:inputs]):
            with below_autograd():
                return operator(*arguments)
        return run(*arguments)

    return call


def wants_gradient(tensors: Iterable[torch.Tensor | None]) -> bool:
    """Whether PyTorch records a gradient of a call with these tensors."""
    return is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def define_gradient(name: str, run: Callable[..., Any], function: Any, *, inputs: int) -> None:
    """Registers an operator's gradient: an autograd.Function that calls run, as all do that need no gradient.

    run: of unless_seen. inputs: the first arguments, that may have a gradient.

    As torch.library.register_autograd, whose way through the schema's defaults costs more than all else of a call.
    """

    def call(*arguments: Any) -> Any:
        return function.apply(*arguments) if wants_gradient(arguments[:inputs]) else run(*arguments)

    library.impl(name, call, "Autograd")


class _Undifferentiable(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(context: Any, name: str, run: Callable[..., Any], *arguments: Any) -> Any:
        context.name = name
        return run(*arguments)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        raise Unsupported(
            "unsupported",
            f"a gradient of {context.name} is asked for",
            "first derivatives of attention and video_sparse_attention",
            "do without create_graph, or call it under torch.no_grad()",
        )


def without_gradient(name: str, run: Callable[..., Any], *, inputs: int) -> Callable[..., Any]:
    """The function, with a gradient that raises Unsupported: PyTorch would detach the result, or only warn.

    inputs: the first ones, that may have a gradient.
    """

    def call(*arguments: Any) -> Any:
        if wants_gradient(arguments[:inputs]):
            return _Undifferentiable.apply(name, run, *arguments)
        return run(*arguments)

    return call


def define_no_gradient(name: str, run: Callable[..., Any], *, inputs: int) -> Callable[..., Any]:
    """Registers that an operator has none; returns what the dispatcher calls. run: of unless_seen."""
    call = without_gradient(name, run, inputs=inputs)
    library.impl(name, call, "Autograd")
    return call


def autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors in autocast's type where autocast is on, as PyTorch's own attention has them."""
    kind = tensors[0].device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        return tuple(t.to(dtype) if t.dtype == torch.float32 else t for t in tensors)
    return tensors


_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter, type(None)))


def sees_operators(tensors: Iterable[torch.Tensor | None]) -> bool:
    """Whether something wants to see a registered operator: else a direct call costs less."""
    if _modes_in_force() or _transform_in_force() is not None:
        return True
    return not _PLAIN.issuperset(map(type, tensors))


def refuse_runtime() -> Unsupported:
    """The error for a call with a runtime of its own that would go through a registered operator."""
    return Unsupported(
        "unsupported",
        "a runtime is given to a call that PyTorch compiles or traces",
        "calls on the device's own runtime",
        "leave runtime out; tilewright.configure has its settings",
    )


def readable(gradient: torch.Tensor) -> torch.Tensor:
    """A gradient as the kernels read it: autograd hands over whatever the layer behind has made, expanded views too."""
    if gradient.is_contiguous() and gradient.data_ptr() % 16 == 0:
        return gradient
    units = 16 // gradient.element_size()
    fits = gradient.stride(-1) == 1 and gradient.data_ptr() % 16 == 0
    if fits and all(
        size == 1 or stride % units == 0
        for size, stride in zip(gradient.shape[:-1], gradient.stride()[:-1], strict=True)
    ):
        return gradient
    return gradient.clone(memory_format=torch.contiguous_format)
