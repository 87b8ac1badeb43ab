"""tilewright's operators through ctypes: libtilewright_benchmark_shim.so (hopper/shim.cpp)."""

import ctypes


class Call(ctypes.Structure):  # TilewrightCall in hopper/shim.cpp
    _fields_ = ([(name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "lse", "counts", "indices", "windows")]
                + [(name, ctypes.c_int64)
                   for name in ("batch", "heads", "kv_heads", "tokens", "head_dim", "text_length", "capacity")]
                + [(name, ctypes.c_int32) for name in ("fp16", "pattern", "window_count", "neighbours_share")]
                + [("canvas", ctypes.c_int32 * 3), ("tile", ctypes.c_int32 * 3)])


class Tilewright:
    def __init__(self, path):
        self.library = ctypes.CDLL(str(path.resolve()))
        self.library.tilewright_open.restype = ctypes.c_void_p
        self.library.tilewright_spec.restype = ctypes.c_char_p
        self.library.tilewright_last_error.restype = ctypes.c_char_p

    def error(self):
        return RuntimeError(self.library.tilewright_last_error().decode())

    def open(self, schedule="", receive_only=""):
        runtime = self.library.tilewright_open(schedule.encode(), receive_only.encode())
        if not runtime:
            raise self.error()
        return ctypes.c_void_p(runtime)

    def forward(self, runtime, call, stream):
        if self.library.tilewright_forward(runtime, ctypes.byref(call), ctypes.c_void_p(stream)):
            raise self.error()

    def spec(self, runtime, call):
        text = self.library.tilewright_spec(runtime, ctypes.byref(call))
        if text is None:
            raise self.error()
        return text.decode()


def call_of(case, q, k, v, out, lse, lists):
    windows = (ctypes.c_int32 * (3 * max(len(case.windows), 1)))(*[x for window in case.windows for x in window])
    call = Call(q=q.data_ptr(), k=k.data_ptr(), v=v.data_ptr(), out=out.data_ptr(), lse=lse.data_ptr(), batch=1,
                heads=case.heads, kv_heads=case.heads, tokens=case.tokens, head_dim=case.head_dim,
                text_length=case.text, pattern=("dense", "sliding_tile", "block_list").index(case.pattern),
                window_count=len(case.windows), windows=ctypes.cast(windows, ctypes.c_void_p),
                neighbours_share=case.sharing)
    call.canvas[:] = case.canvas
    call.tile[:] = case.tile
    if lists:
        call.counts, call.indices, call.capacity = lists[0].data_ptr(), lists[1].data_ptr(), lists[1].shape[2]
    call.keep = (windows, q, k, v, out, lse, lists)  # the memory behind the pointers
    return call
