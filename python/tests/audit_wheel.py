"""audit_wheel.py WHEEL: its module may link glibc and the compiler's libraries; nothing of CUDA or PyTorch."""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ALLOWED = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}

with tempfile.TemporaryDirectory() as folder:
    zipfile.ZipFile(sys.argv[1]).extractall(folder)
    modules = list(Path(folder).rglob("*.so"))
    if len(modules) != 1:
        sys.exit(f"{sys.argv[1]} holds {len(modules)} shared objects; one is expected: tilewright/_native")
    for name in ("__init__.py", "py.typed", "_native.pyi", "compat/vsa.py"):
        if not (Path(folder) / "tilewright" / name).exists():
            sys.exit(f"{sys.argv[1]} lacks tilewright/{name}")
    dynamic = subprocess.run(["readelf", "--dynamic", modules[0]], check=True, capture_output=True, text=True).stdout
needed = set(re.findall(r"NEEDED.*\[(.+)\]", dynamic))
if not needed or needed - ALLOWED:
    sys.exit(f"{modules[0].name} needs {sorted(needed)}; allowed are {sorted(ALLOWED)}")
print(f"{modules[0].name} needs {', '.join(sorted(needed))}")
