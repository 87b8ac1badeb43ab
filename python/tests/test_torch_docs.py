"""docs/python.md: its code runs as it stands there, on smaller videos."""

from __future__ import annotations

import math
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import tilewright as tw
import torch
from tilewright.compat import st_attn, vsa

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/python.md").read_text()
# One rounding to bf16 (2^-9 relative) on each side, values of order 1.
TOLERANCE = {"atol": 2**-7, "rtol": 2**-7}


def blocks(text=TEXT):
    """Python blocks by the heading above them."""
    found = {}
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        code = re.findall(r"^```python\n(.*?)^```", body, flags=re.MULTILINE | re.DOTALL)
        if code:
            found[heading] = code
    return found


def random(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def run(code, names, **smaller):
    """The names that the code leaves, and those given. smaller: texts of it, and what stands in their place here."""
    for text, other in smaller.items():
        assert text in code, f"{text!r} is not in the documentation any more"
        code = code.replace(text, other)
    exec(compile(code, "docs/python.md", "exec"), names)
    return SimpleNamespace(**names)


def test_every_block_is_run_here():
    assert list(blocks()) == [
        "The PyTorch package",
        "Video sparse attention",
        "diffusers",
        "A backend for FastVideo and SGLang-diffusion",
    ]


@pytest.mark.parametrize("document", ["docs/python.md", "README.md"])
def test_quick_start(document):
    canvas, text = (6, 8, 16), 256
    q, k, v = (random(seed, 1, math.prod(canvas) + text, 2, 64) for seed in range(3))
    (code,) = next(code for code in blocks((ROOT / document).read_text()).values() if "SlidingTile" in code[0])
    left = run(code, {"q": q, "k": k, "v": v, "tilewright": tw}, **{"(30, 48, 80)": str(canvas)})
    assert left.out.shape == q.shape and left.pattern.text_length == text


def test_video_sparse_attention():
    canvas = (4, 8, 8)
    q, k, v, gate = (random(seed, 1, math.prod(canvas), 2, 64) for seed in range(4))
    mask = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(5)) < 0.5
    (code,) = blocks()["Video sparse attention"]
    given = dict(q=q, k=k, v=v, gate=gate, mask=mask, canvas=canvas, topk=2, tile=(4, 4, 4), tilewright=tw)
    left = run(code, given, **{"canvas=(16, 48, 64)": "canvas=(4, 8, 8)", "0.9, 768": "0.5, 4"})
    assert left.pattern.topk == 2 and left.out.shape == left.fine.shape == q.shape
    assert torch.equal(left.counts, mask.sum(-1)), "the lists of the mask are the last ones"


def test_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="SKIP: diffusers is not installed")
    sizes = {"num_attention_heads": 2, "attention_head_dim": 64, "in_channels": 4, "out_channels": 4, "text_dim": 16}
    model = diffusers.WanTransformer3DModel(**sizes, freq_dim=16, ffn_dim=64, num_layers=1, rope_max_seq_len=32)
    (code,) = blocks()["diffusers"]
    left = run(code, {"pipe": SimpleNamespace(transformer=model)})
    assert type(model.blocks[0].attn1.processor).__name__ == "WanVideoSparseProcessor"
    left.add_gates(model, {f"blocks.0.to_gate_compress.{name}": x for name, x in gate_like(model).items()})


def gate_like(model):
    layer = model.blocks[0].attn1.to_q
    return {"weight": torch.zeros_like(layer.weight), "bias": torch.ones_like(layer.bias)}


def backends(**given):
    names = {"math": math, "VideoSparseAttentionImpl": object, "SlidingTileAttentionImpl": object, **given}
    for code in blocks()["A backend for FastVideo and SGLang-diffusion"]:
        left = run(code, names)
    return left


def test_backend_of_video_sparse_attention():
    """In the order of calls of a layer there, against the older way through our drop-in."""
    canvas, sparsity = (4, 8, 10), 0.6
    made = vsa.build_vsa_metadata(canvas, device="cpu")
    metadata = SimpleNamespace(dit_seq_shape=list(canvas), VSA_sparsity=sparsity, num_tiles=made["num_tiles"])
    qkvg = random(1, 4, math.prod(canvas), 2, 64)  # q, k, v and the gate, one after the other
    impl = backends(VSA_TILE_SIZE=(4, 4, 4)).TilewrightVideoSparseImpl()
    out = impl.forward(*impl.preprocess_qkv(qkvg, metadata).chunk(4, dim=0), metadata)
    out = impl.postprocess_output(out, metadata)

    padded = torch.zeros(4, math.prod(made["num_tiles"]) * 64, 2, 64, dtype=qkvg.dtype)
    padded[:, made["non_pad_index"]] = qkvg[:, made["tile_partition_indices"]]
    q, k, v, gate = padded.transpose(1, 2).chunk(4, dim=0)
    sizes = made["variable_block_sizes"]
    topk = max(1, math.ceil((1 - sparsity) * sizes.numel()))
    older = vsa.video_sparse_attn(q, k, v, sizes, sizes, topk, (4, 4, 4), gate).transpose(1, 2)
    older = older[:, made["non_pad_index"]][:, made["reverse_tile_partition_indices"]]
    torch.testing.assert_close(out, older, **TOLERANCE)


@pytest.mark.parametrize("text", [0, 20])
def test_backend_of_sliding_tiles(text):
    canvas, tile = (6, 16, 16), (6, 8, 8)
    video = math.prod(canvas)
    # Two processes share the heads; this is the second one, in layer 3.
    windows = {3: [(9, 9, 9), (9, 9, 9), [1, 1, 1], [1, 3, 1]]}
    metadata = SimpleNamespace(STA_param=windows)
    impl = backends(get_sp_group=lambda: SimpleNamespace(rank_in_group=1)).TilewrightSlidingTileImpl()
    impl.prefix, impl.STA_base_tile_size = "double_blocks.3.attn.impl", list(tile)
    impl.dit_seq_shape_mapping = {video: "x".join(map(str, canvas))}
    qkv, of_text = random(1, 3, video, 2, 64), random(2, 3, text, 2, 64)
    whole = torch.cat([impl.preprocess_qkv(qkv, metadata), of_text], dim=1)
    out = impl.postprocess_output(impl.forward(*whole.chunk(3, dim=0), metadata), metadata)

    index = vsa.get_tile_partition_indices(canvas, tile, torch.device("cpu"))
    tiled = torch.cat([qkv[:, index], of_text], dim=1).transpose(1, 2).contiguous().chunk(3, dim=0)
    older = st_attn.sliding_tile_attention(*tiled, windows[3][2:], text, text > 0, "6x16x16").transpose(1, 2)
    older = torch.cat([older[:, :video][:, torch.argsort(index)], older[:, video:]], dim=1)
    torch.testing.assert_close(out, older, **TOLERANCE)


def test_imports_of_the_older_packages():
    (table,) = re.findall(r"\| today \| with tilewright \|\n(.*?)\n\n", TEXT, flags=re.DOTALL)
    rows = [row.split("|")[1:3] for row in table.splitlines() if "tilewright.compat" in row]
    assert len(rows) == 3
    for today, ours in rows:
        wanted = re.search(r"import ([\w, ]+)`", today)
        listed = re.search(r": ([\w, ]+) and its helpers", ours)  # of the package whose names stand on the right
        names = (wanted or listed)[1].split(", ")
        module = re.search(r"from (tilewright\.compat\.\w+)", ours)[1]
        exec(f"from {module} import {', '.join(names)}", {})


def test_flex_attention_with_a_mask_of_sliding_tiles():
    flex_attention = pytest.importorskip("torch.nn.attention.flex_attention", reason="SKIP: PyTorch before 2.5")
    canvas, tile = (4, 8, 12), (4, 4, 4)  # 1 x 2 x 3 tiles; a window of 1 along the last axis
    tokens = math.prod(canvas)

    def sliding(batch, head, query, key):
        return query % 12 // 4 == key % 12 // 4

    q, k, v = (random(seed, 1, 2, tokens, 64) for seed in range(3))
    mask = flex_attention.create_block_mask(sliding, None, None, tokens, tokens, device="cpu")
    today = flex_attention.flex_attention(q.float(), k.float(), v.float(), block_mask=mask)
    ours = tw.attention(q, k, v, tw.SlidingTile(canvas, (1, 3, 1), tile), layout="raster_bhsd")
    torch.testing.assert_close(ours.float(), today, **TOLERANCE)


def docker_lines():
    (section,) = re.findall(r"^## Docker images.*?\n(.*?)^## ", TEXT, flags=re.MULTILINE | re.DOTALL)
    return re.search(r"^    RUN (.*?)\n    ENV (.*?)$", section, flags=re.MULTILINE | re.DOTALL).groups()


def test_the_images_environment_is_what_is_read():
    _, environment = docker_lines()
    names = [setting.partition("=")[0] for setting in environment.split()]
    source = "".join(path.read_text() for path in (ROOT / "include/tilewright").glob("*.hpp"))
    assert names == ["TILEWRIGHT_CACHE_RO", "TILEWRIGHT_JIT"] and all(f"${name}" in source for name in names)


@pytest.mark.skipif("TILEWRIGHT_COMMAND" not in os.environ, reason="SKIP: the built command is not named")
def test_the_image_is_filled(tmp_path):
    """scripts/test_python.sh names the command. What it makes is run on a GPU by gpu/warm_cache.py."""
    script, _ = docker_lines()
    script = script.replace("/opt/tilewright", str(tmp_path)).replace(
        "build/tilewright", os.environ["TILEWRIGHT_COMMAND"]
    )
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=300)
    if "NVRTC" in done.stderr and done.returncode != 0:
        pytest.skip("SKIP: no NVRTC")
    assert done.returncode == 0, done.stderr
    made = subprocess.run(
        [os.environ["TILEWRIGHT_COMMAND"], "cache", "list"],
        capture_output=True,
        text=True,
        env={**os.environ, "TILEWRIGHT_CACHE": str(tmp_path)},
    )
    assert sum("@sm_90" in line for line in made.stdout.splitlines()) == 8, "whole and clipped tiles, four steps"
