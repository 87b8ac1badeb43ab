"""Attention processors for Hugging Face diffusers' Wan and HunyuanVideo transformers, tokens in the model's order.

>>> from tilewright.diffusers import use_sliding_tile
>>> use_sliding_tile(pipe.transformer, windows=(3, 3, 3), tile=(4, 4, 4))

Query, key and value stay [batch, tokens, heads, head_dim] in raster order: nothing is re-ordered around the kernel.
"""

from __future__ import annotations

from typing import Any

import torch

from .attention import attention
from .errors import invalid
from .patterns import Extent, SlidingTile, extent


class _Canvas:
    """The token grid of the video in flight: a hook on the transformer reads it from the latent's shape."""

    def __init__(self, patch: Extent) -> None:
        self.patch = patch
        self.tokens: Extent = (0, 0, 0)
        self.text_length: int | None = None

    def read(self, module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        latent = named["hidden_states"] if "hidden_states" in named else arguments[0]
        t, h, w = (size // patch for size, patch in zip(latent.shape[2:], self.patch, strict=True))
        self.tokens = (t, h, w)


class _Settings:
    def __init__(self, canvas: _Canvas, windows: Any, tile: Extent) -> None:
        self.canvas = canvas
        self.windows = windows
        self.tile = tile

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, text_length: int | None
    ) -> torch.Tensor:
        pattern = SlidingTile(self.canvas.tokens, self.windows, self.tile, text_length)
        return attention(query, key, value, pattern).flatten(2, 3)


def _by_head(projected: torch.Tensor, heads: int) -> torch.Tensor:
    return projected.unflatten(2, (heads, -1))


class WanProcessor:
    """For WanTransformer3DModel's self-attention (attn1)."""

    def __init__(self, settings: _Settings) -> None:
        self.settings = settings

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        if encoder_hidden_states is not None or attention_mask is not None:
            raise invalid(
                "cross-attention or a mask", "self-attention without a mask", "set this processor on attn1 only"
            )
        if getattr(attn, "fused_projections", False):
            query, key, value = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        query, key = attn.norm_q(query), attn.norm_k(key)
        query, key, value = (_by_head(x, attn.heads) for x in (query, key, value))
        if rotary_emb is not None:
            query, key = (_rotate_pairs(x, *rotary_emb) for x in (query, key))
        mixed = self.settings.attend(query, key, value, None)
        projected: torch.Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return projected


def _rotate_pairs(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotates neighbouring columns; cosine and sine hold each pair's value twice."""
    even, odd = x[..., 0::2], x[..., 1::2]
    c, s = cosine[..., 0::2], sine[..., 1::2]
    return torch.stack((even * c - odd * s, even * s + odd * c), dim=-1).flatten(-2).type_as(x)


class HunyuanVideoProcessor:
    """For HunyuanVideoTransformer3DModel's double and single blocks: video tokens, then text tokens."""

    def __init__(self, settings: _Settings) -> None:
        self.settings = settings

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        from diffusers.models.embeddings import apply_rotary_emb

        def project(states: torch.Tensor, names: tuple[str, str, str], norms: tuple[str, str]) -> list[torch.Tensor]:
            heads = [_by_head(getattr(attn, name)(states), attn.heads) for name in names]
            for i, norm in enumerate(norms):
                if getattr(attn, norm, None) is not None:
                    heads[i] = getattr(attn, norm)(heads[i])
            return heads

        single = attn.add_q_proj is None
        video = project(hidden_states, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"))
        if single:
            text = project(encoder_hidden_states, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"))
        else:
            text = project(
                encoder_hidden_states, ("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k")
            )
        if image_rotary_emb is not None:
            video[:2] = [apply_rotary_emb(x, image_rotary_emb, sequence_dim=1) for x in video[:2]]
        query, key, value = (torch.cat(pair, dim=1) for pair in zip(video, text, strict=True))

        rows = encoder_hidden_states.shape[1]
        valid = self.settings.canvas.text_length
        mixed = self.settings.attend(query, key, value, rows if valid is None else valid)
        of_video, of_text = mixed[:, :-rows], mixed[:, -rows:]
        if getattr(attn, "to_out", None) is not None:
            of_video = attn.to_out[1](attn.to_out[0](of_video))
        if getattr(attn, "to_add_out", None) is not None:
            of_text = attn.to_add_out(of_text)
        return of_video, of_text


def _read_text_length(canvas: _Canvas, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    mask = named["encoder_attention_mask"] if "encoder_attention_mask" in named else arguments[3]
    lengths = {int(length) for length in mask.sum(dim=1).tolist()}
    if len(lengths) != 1:
        raise invalid(f"prompts of {sorted(lengths)} tokens in one batch", "one length", "run them one after the other")
    canvas.text_length = lengths.pop()


def use_sliding_tile(transformer: Any, windows: Any, tile: Any = (4, 4, 4)) -> None:
    """Lets a Wan or HunyuanVideo transformer attend by sliding tiles from now on.

    windows: (t, h, w) in tiles, for all heads or one a head; tile: (t, h, w) in tokens. The canvas follows from the
    latent of each call. HunyuanVideo's prompt length is read from the mask, which synchronises once a step; prompts of
    one batch must have one length.
    """
    name = type(transformer).__name__
    size = extent(tile, "tile")
    config = transformer.config
    if name == "WanTransformer3DModel":
        canvas = _Canvas(extent(config.patch_size, "patch_size"))
        settings = _Settings(canvas, windows, size)
        for block in transformer.blocks:
            block.attn1.set_processor(WanProcessor(settings))
    elif name == "HunyuanVideoTransformer3DModel":
        canvas = _Canvas((config.patch_size_t, config.patch_size, config.patch_size))
        settings = _Settings(canvas, windows, size)
        for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
            block.attn.set_processor(HunyuanVideoProcessor(settings))
    else:
        raise invalid(f"transformer is a {name}", "WanTransformer3DModel or HunyuanVideoTransformer3DModel", "pass one")

    def before(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        canvas.read(module, arguments, named)
        if name.startswith("Hunyuan"):
            _read_text_length(canvas, arguments, named)

    transformer.register_forward_pre_hook(before, with_kwargs=True)
