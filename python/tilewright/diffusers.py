"""Attention processors for Hugging Face diffusers' Wan and HunyuanVideo transformers, tokens in the model's order.

>>> from tilewright.diffusers import use_sliding_tile, use_video_sparse
>>> use_sliding_tile(pipe.transformer, windows=(3, 3, 3), tile=(4, 4, 4))
>>> use_video_sparse(pipe.transformer, sparsity=0.9)  # Wan

Query, key and value stay [batch, tokens, heads, head_dim] in raster order: nothing is re-ordered around the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ._execute import tile_count
from .attention import attention
from .errors import invalid
from .patterns import Extent, SlidingTile, VideoSparse, extent
from .video_sparse import topk_of_tiles, video_sparse_attention


class _Canvas:
    """The token grid of the video in flight: a hook on the transformer reads it from the latent's shape."""

    def __init__(self, config: Any) -> None:
        one = isinstance(config.patch_size, int)  # HunyuanVideo has one for both axes of a frame
        self.patch = extent((config.patch_size_t, *[config.patch_size] * 2) if one else config.patch_size, "patch_size")
        self.tokens: Extent = (0, 0, 0)
        self.text_length: int | None = None

    def read(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
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


def _gate_of(module: Any) -> Any:
    return getattr(module, "to_gate_compress", None)


class _VideoSparseSettings:
    def __init__(self, canvas: _Canvas, sparsity: float, tile: Extent) -> None:
        self.canvas = canvas
        self.sparsity = sparsity
        self.tile = tile

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor | None
    ) -> torch.Tensor:
        canvas = self.canvas.tokens
        topk = topk_of_tiles(self.sparsity, tile_count(canvas, self.tile))
        pattern = VideoSparse(canvas, topk, self.tile)
        return video_sparse_attention(query, key, value, pattern, gate=gate).flatten(2, 3)


def _by_head(projected: torch.Tensor, heads: int) -> torch.Tensor:
    return projected.unflatten(2, (heads, -1))


class _WanSelfAttention:
    """What WanTransformer3DModel's self-attention (attn1) does around the attention itself."""

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
        mixed = self.attend(attn, hidden_states, query, key, value)
        projected: torch.Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return projected

    def attend(
        self, attn: Any, hidden_states: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """[batch, tokens, heads * head_dim] from three tensors [batch, tokens, heads, head_dim]."""
        raise NotImplementedError


class WanProcessor(_WanSelfAttention):
    """For WanTransformer3DModel's self-attention (attn1): sliding tiles."""

    def __init__(self, settings: _Settings) -> None:
        self.settings = settings

    def attend(
        self, attn: Any, hidden_states: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        return self.settings.attend(query, key, value, None)


class WanVideoSparseProcessor(_WanSelfAttention):
    """For WanTransformer3DModel's self-attention (attn1): video sparse attention.

    The gate is what attn.to_gate_compress makes of the tokens that the query is made of; without that layer it is 1.
    """

    def __init__(self, settings: _VideoSparseSettings) -> None:
        self.settings = settings

    def attend(
        self, attn: Any, hidden_states: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        project = _gate_of(attn)
        gate = None if project is None else _by_head(project(hidden_states), attn.heads)
        return self.settings.attend(query, key, value, gate)


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


def _before_each_call(transformer: Any, read: Callable[[tuple[Any, ...], dict[str, Any]], None]) -> None:
    """Lets a function see the transformer's arguments; it takes the place of an earlier one."""

    def hook(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        read(arguments, named)

    earlier = getattr(transformer, "_tilewright_hook", None)
    if earlier is not None:
        earlier.remove()
    transformer._tilewright_hook = transformer.register_forward_pre_hook(hook, with_kwargs=True)


def use_sliding_tile(transformer: Any, windows: Any, tile: Any = (4, 4, 4)) -> None:
    """Lets a Wan or HunyuanVideo transformer attend by sliding tiles from now on.

    windows: (t, h, w) in tiles, for all heads or one a head; tile: (t, h, w) in tokens. The canvas follows from the
    latent of each call. HunyuanVideo's prompt length is read from the mask, which synchronises once a step; prompts of
    one batch must have one length.
    """
    name = type(transformer).__name__
    if name not in ("WanTransformer3DModel", "HunyuanVideoTransformer3DModel"):
        raise invalid(f"transformer is a {name}", "WanTransformer3DModel or HunyuanVideoTransformer3DModel", "pass one")
    canvas = _Canvas(transformer.config)
    settings = _Settings(canvas, windows, extent(tile, "tile"))
    if name == "WanTransformer3DModel":
        for block in transformer.blocks:
            block.attn1.set_processor(WanProcessor(settings))
        _before_each_call(transformer, canvas.read)
        return
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        block.attn.set_processor(HunyuanVideoProcessor(settings))

    def read(arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        canvas.read(arguments, named)
        _read_text_length(canvas, arguments, named)

    _before_each_call(transformer, read)


def _wan_blocks(transformer: Any) -> Any:
    name = type(transformer).__name__
    if name != "WanTransformer3DModel":
        raise invalid(
            f"transformer is a {name}", "WanTransformer3DModel", "video sparse attention takes no text tokens"
        )
    return transformer.blocks


def use_video_sparse(transformer: Any, sparsity: float, tile: Any = (4, 4, 4)) -> None:
    """Lets a Wan transformer's self-attention be video sparse attention from now on.

    sparsity: the share of tiles that each query tile leaves out (topk_of_tiles); tile: (t, h, w) in tokens. The canvas
    follows from the latent of each call. The gate comes from a layer attn1.to_gate_compress, where there is one: see
    add_gates. Without it the gate is 1, as an untrained model has none.
    """
    blocks = _wan_blocks(transformer)
    canvas = _Canvas(transformer.config)
    settings = _VideoSparseSettings(canvas, sparsity, extent(tile, "tile"))
    for block in blocks:
        block.attn1.set_processor(WanVideoSparseProcessor(settings))
    _before_each_call(transformer, canvas.read)


def add_gates(transformer: Any, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Gives each self-attention of a Wan transformer the gate's projection, attn1.to_gate_compress.

    weights: a checkpoint that was trained with video sparse attention, of which the tensors
    blocks.N.to_gate_compress.{weight,bias} (or blocks.N.attn1.to_gate_compress...) are taken, since diffusers' own
    loading drops them. None: zeros, with which training starts: the fine branch alone.
    """
    for number, block in enumerate(_wan_blocks(transformer)):
        like = block.attn1.to_q.weight
        gate = torch.nn.Linear(like.shape[1], like.shape[0], device=like.device, dtype=like.dtype)
        for name, parameter in gate.named_parameters():
            found = None if weights is None else _weight(weights, number, name, parameter)
            with torch.no_grad():
                parameter.zero_() if found is None else parameter.copy_(found)
        block.attn1.to_gate_compress = gate


def _weight(weights: Mapping[str, torch.Tensor], block: int, name: str, like: torch.Tensor) -> torch.Tensor:
    names = [f"blocks.{block}.{part}to_gate_compress.{name}" for part in ("", "attn1.")]
    found = next((weights[key] for key in names if key in weights), None)
    if found is None or found.shape != like.shape:
        seen = "no tensor" if found is None else f"a tensor of shape {tuple(found.shape)}"
        raise invalid(
            f"weights hold {seen} {names[0]}", f"one of shape {tuple(like.shape)}", "pass the whole checkpoint"
        )
    return found
