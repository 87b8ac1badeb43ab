"""The processors in tiny random models: a window that sees everything gives what the model's own attention does."""

from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="SKIP: diffusers is not installed")

from tilewright.diffusers import use_sliding_tile  # noqa: E402

# Two layers in bf16: attention's output is rounded on both sides: a few steps of 2^-8.
TOLERANCE = 2**-6


def wan():
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=64,
        num_layers=2,
        rope_max_seq_len=32,
    )
    call = {
        "hidden_states": torch.randn(1, 4, 3, 12, 12),
        "timestep": torch.tensor([5.0]),
        "encoder_hidden_states": torch.randn(1, 7, 16),
    }
    return model, call


def hunyuan():
    model = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=64,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=False,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(16, 24, 24),
    )
    mask = torch.zeros(1, 9, dtype=torch.long)
    mask[:, :6] = 1
    call = {
        "hidden_states": torch.randn(1, 4, 3, 12, 12),
        "timestep": torch.tensor([5]),
        "encoder_hidden_states": torch.randn(1, 9, 16),
        "encoder_attention_mask": mask,
        "pooled_projections": torch.randn(1, 8),
    }
    return model, call


@pytest.mark.parametrize("build", [wan, hunyuan])
def test_windows_that_see_everything_match_the_models_own_attention(build):
    torch.manual_seed(1)
    model, call = build()
    model = model.to(torch.bfloat16).eval()
    call = {k: v.bfloat16() if v.is_floating_point() and k != "timestep" else v for k, v in call.items()}
    with torch.no_grad():
        expected = model(**call, return_dict=False)[0]
        use_sliding_tile(model, windows=(9, 9, 9), tile=(4, 4, 4))
        out = model(**call, return_dict=False)[0]
        assert expected.float().abs().mean() > 0.1
        torch.testing.assert_close(out, expected, atol=TOLERANCE, rtol=TOLERANCE)
        use_sliding_tile(model, windows=(1, 1, 1), tile=(4, 4, 4))
        narrow = model(**call, return_dict=False)[0]
        assert (narrow - expected).abs().max() > 2 * TOLERANCE, "a narrow window changes nothing: it is not in use"
