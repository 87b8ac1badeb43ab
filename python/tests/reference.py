"""Attention in float64 from masks that are built pair by pair: independent of the library."""

from __future__ import annotations

import numpy as np


def attend(q, k, v, mask, scale):
    """q, k, v: [heads, tokens, head_dim] float64 (fewer of k, v are shared); mask: bool [heads or 1, queries, keys]."""
    repeat = q.shape[0] // k.shape[0]
    k, v = np.repeat(k, repeat, axis=0), np.repeat(v, repeat, axis=0)
    scores = np.where(mask, scale * (q @ k.transpose(0, 2, 1)), -np.inf)
    peak = scores.max(axis=-1, keepdims=True)
    peak[np.isneginf(peak)] = 0
    weights = np.exp(scores - peak)
    total = weights.sum(axis=-1, keepdims=True)
    out = np.where(total > 0, weights @ v / np.where(total > 0, total, 1), 0)
    with np.errstate(divide="ignore"):
        return out, (np.log(total) + peak)[..., 0]


def sliding_tile_mask(canvas, tile, window, text_rows=0, text_length=0):
    """bool [tokens, tokens] in raster order, by the definition in docs/semantics.md."""
    coordinates = np.stack(np.unravel_index(np.arange(np.prod(canvas)), canvas), axis=-1)
    mine = coordinates // tile
    mask = np.ones((len(mine), len(mine)), dtype=bool)
    for axis in range(3):
        count = -(-canvas[axis] // tile[axis])
        half = window[axis] // 2
        width = min(2 * half + 1, count)
        start = np.clip(mine[:, axis] - half, 0, count - width)
        key = mine[None, :, axis]
        mask &= (key >= start[:, None]) & (key < start[:, None] + width)
    whole = np.zeros((len(mine) + text_rows,) * 2, dtype=bool)
    video, valid = len(mine), len(mine) + text_length
    whole[:video, :video] = mask
    whole[:video, video:valid] = True
    whole[video:valid, :valid] = True
    return whole
