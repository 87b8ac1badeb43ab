"""Sliding tile attention over a video's tokens: on the GPU where there is one, else on the CPU (float64 reference)."""

import tilewright
import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
canvas, text_rows = (4, 8, 8), 16  # tokens along (t, h, w); the prompt's rows stand behind the video's
tokens = 4 * 8 * 8 + text_rows
q, k, v = (torch.randn(1, tokens, 2, 64, device=device, dtype=torch.bfloat16) for _ in range(3))
pattern = tilewright.SlidingTile(canvas, windows=(1, 1, 1), tile=(4, 4, 4), text_length=11)
out, lse = tilewright.attention(q, k, v, pattern, return_lse=True)
print(out.shape, lse.shape)
