"""Runtimes: where operators run, and the kernel cache's settings."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from . import _native
from ._tensors import Tensor, current_stream, device_of
from .errors import invalid


@dataclass(frozen=True)
class CacheOptions:
    """The kernel cache's settings.

    folder            "": $TILEWRIGHT_CACHE, else $XDG_CACHE_HOME/tilewright, else ~/.cache/tilewright
    read_only_folder  a second layer that is never written; "": $TILEWRIGHT_CACHE_RO, else none
    jit               what a miss may do: "allow", "warn", or "forbid" (an error that names the warmup command);
                      $TILEWRIGHT_JIT overrides it
    maximum_bytes, maximum_entries   least recently used entries go first
    """

    folder: str = ""
    read_only_folder: str = ""
    jit: Literal["allow", "warn", "forbid"] = "allow"
    maximum_bytes: int = 1 << 30
    maximum_entries: int = 10_000


@dataclass(frozen=True)
class CacheStatistics:
    """What a runtime's kernel cache has done so far, one count for each kernel that it was asked for.

    Kernels that are loaded are not asked for again: a steady process stands still in all of these.

    memory_hits, joined              known to this process, or waited for while another thread got it
    disk_hits                        verified; read_only_hits of them from the read-only layer
    remote_hits                      from the remote cache
    compiles                         0 is what a warmed machine wants to see
    lock_timeouts                    compiled although another process held the lock
    corrupt_entries, failed_writes   found damaged and set aside; compiled or fetched, and not kept
    """

    memory_hits: int
    disk_hits: int
    read_only_hits: int
    remote_hits: int
    compiles: int
    joined: int
    lock_timeouts: int
    corrupt_entries: int
    failed_writes: int


class Runtime:
    """Operators on one device: "cuda", "cuda:N", "emulator" or "reference".

    "reference" computes in float64 on the CPU, "emulator" runs the generated kernels on the CPU and needs a host C++
    compiler. Both take tensors on the CPU. Thread-safe. Keep a CUDA runtime as long as graphs that captured its
    launches.

    on_message receives warnings, a text each. Raises Error (code no_device) where there is no usable GPU.
    """

    def __init__(
        self,
        device: str = "cuda",
        *,
        cache: CacheOptions | None = None,
        architecture: str = "sm_80",
        seed: int = 0,
        on_message: Callable[[str], object] | None = None,
    ) -> None:
        kind, _, ordinal = device.partition(":")
        if ordinal and (kind != "cuda" or not ordinal.isdigit()):
            raise invalid(f"device is {device!r}", '"cuda", "cuda:N", "emulator" or "reference"', "choose one of them")
        options = cache or CacheOptions()
        self.device = device
        self.kind = kind
        self._engine = _native.make_engine(
            kind,
            int(ordinal) if ordinal else -1,
            architecture,
            os.fspath(options.folder),
            os.fspath(options.read_only_folder),
            options.jit,
            options.maximum_bytes,
            options.maximum_entries,
            seed,
            on_message,
        )

    def prepare(self, problem: str, *, backward: bool = False) -> None:
        """Compiles, or fetches from the cache, and loads every variant of a problem's one line; launches nothing.

        backward: its backward pass as well.
        Example: "attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3,dtype=bf16,head_dim=128,layout=raster"
        """
        self._engine.prepare(problem, backward)

    def cache_statistics(self) -> CacheStatistics:
        """How many kernels came from where so far. The emulator counts disk hits and compiles, the reference nothing.

        `tilewright cache stats` tells what lies in the folder, whoever put it there.
        """
        return CacheStatistics(**self._engine.cache_statistics())

    def __repr__(self) -> str:
        return f"tilewright.Runtime({self.device!r})"


class _Defaults:
    """The runtime of each device, made when it is first needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runtimes: dict[tuple[str, int], Runtime] = {}
        self.engines: dict[Any, tuple[_native.Engine, int]] = {}  # of GPUs, by torch.device: found in one step
        self.cache = CacheOptions()
        self.on_message: Callable[[str], object] | None = None
        self.cpu = os.environ.get("TILEWRIGHT_CPU", "reference")

    def make(self, device: tuple[str, int]) -> Runtime:
        kind, ordinal = device
        name = f"cuda:{ordinal}" if kind == "cuda" else self.cpu
        return Runtime(name, cache=self.cache, on_message=self.on_message)


_defaults = _Defaults()


def configure(
    *,
    cache: CacheOptions | None = None,
    cpu: Literal["reference", "emulator"] | None = None,
    on_message: Callable[[str], object] | None = None,
) -> None:
    """Settings of the default runtimes, for calls from now on; what is None stays as it is.

    cpu: what tensors on the CPU run through ($TILEWRIGHT_CPU where this was never called; else "reference").
    """
    if cpu is not None and cpu not in ("reference", "emulator"):
        raise invalid(f"cpu is {cpu!r}", '"reference" or "emulator"', "choose one of them")
    with _defaults.lock:
        if cache is not None:
            _defaults.cache = cache
        if cpu is not None:
            _defaults.cpu = cpu
        if on_message is not None:
            _defaults.on_message = on_message
        # Those of GPUs are kept alive by _retired: graphs may have captured their kernels.
        _retired.extend(_defaults.runtimes.values())
        _defaults.runtimes = {}
        _defaults.engines = {}


_retired: list[Runtime] = []


def default_runtime(device: tuple[str, int]) -> Runtime:
    """The runtime for tensors on ("cuda", ordinal) or ("cpu", 0)."""
    found = _defaults.runtimes.get(device)
    if found is not None:
        return found
    with _defaults.lock:
        if device not in _defaults.runtimes:
            _defaults.runtimes[device] = _defaults.make(device)
        return _defaults.runtimes[device]


def place(q: Tensor, runtime: Runtime | None) -> tuple[_native.Engine, int | None]:
    """Where a call runs: the runtime's engine, or that of q's device; and PyTorch's current stream there.

    The stream is None for tensors on the CPU. Raises InvalidArgument where the runtime is not of q's device.
    """
    if runtime is None:
        found = _defaults.engines.get(getattr(q, "device", None))
        if found is not None:
            return found[0], current_stream(found[1])
    device = device_of(q)
    chosen = runtime or default_runtime(device)
    if (chosen.kind == "cuda") != (device[0] == "cuda"):
        raise invalid(
            f"q is on {device[0]} and the runtime is {chosen!r}", "a runtime of q's device", "move the tensors"
        )
    if device[0] == "cpu":
        return chosen._engine, None
    if runtime is None:
        _defaults.engines[q.device] = chosen._engine, device[1]
    return chosen._engine, current_stream(device[1])
