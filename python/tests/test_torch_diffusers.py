"""The processors in tiny random models: a window that sees everything gives what the model's own attention does."""

from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="SKIP: diffusers is not installed")

import tilewright as tw  # noqa: E402
from test_torch_video_sparse import CANVAS, TILES, TOPK, expected, tile_of_tokens  # noqa: E402
from tilewright.diffusers import WanVideoSparseProcessor, add_gates, use_sliding_tile, use_video_sparse  # noqa: E402

# Two layers in bf16: attention's output is rounded on both sides: a few steps of 2^-8.
TOLERANCE = 2**-6


def wan(canvas=(3, 6, 6), layers=2):
    t, h, w = canvas
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=64,
        num_layers=layers,
        rope_max_seq_len=32,
    )
    call = {
        "hidden_states": torch.randn(1, 4, t, 2 * h, 2 * w),
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


def in_bf16(model, call):
    call = {k: v.bfloat16() if v.is_floating_point() and k != "timestep" else v for k, v in call.items()}
    return model.to(torch.bfloat16).eval(), call


@pytest.mark.parametrize("build", [wan, hunyuan])
def test_windows_that_see_everything_match_the_models_own_attention(build):
    torch.manual_seed(1)
    model, call = in_bf16(*build())
    with torch.no_grad():
        expected = model(**call, return_dict=False)[0]
        use_sliding_tile(model, windows=(9, 9, 9), tile=(4, 4, 4))
        out = model(**call, return_dict=False)[0]
        assert expected.float().abs().mean() > 0.1
        torch.testing.assert_close(out, expected, atol=TOLERANCE, rtol=TOLERANCE)
        use_sliding_tile(model, windows=(1, 1, 1), tile=(4, 4, 4))
        narrow = model(**call, return_dict=False)[0]
        assert (narrow - expected).abs().max() > 2 * TOLERANCE, "a narrow window changes nothing: it is not in use"


def output_and_gradients(model, call):
    """The model's output, and its self-attentions' gradients for a fixed direction, by the parameters' names."""
    model.zero_grad()
    out = model(**call, return_dict=False)[0]
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out.dtype))
    return out.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if "attn1" in name}


def assert_near(found, wanted):
    """Relative, in the Euclidean norm: gradients of a whole layer in bf16 carry a few roundings to 2^-9."""
    for name, gradient in wanted.items():
        difference = (found[name].double() - gradient.double()).norm()
        assert difference <= 3e-2 * gradient.double().norm(), f"{name}: {difference:.2g} of {gradient.norm():.2g}"


def random_gates(model, seed=5):
    """Weights as a checkpoint that was trained with gates names them."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for number, block in enumerate(model.blocks):
        shape = block.attn1.to_q.weight.shape
        weights[f"blocks.{number}.to_gate_compress.weight"] = torch.randn(shape, generator=generator) / shape[1] ** 0.5
        weights[f"blocks.{number}.to_gate_compress.bias"] = torch.randn(shape[0], generator=generator)
    return weights


def test_video_sparse_of_all_tiles_with_zero_gates_is_the_models_own_attention():
    torch.manual_seed(1)
    model, call = in_bf16(*wan())
    expected_out, gradients = output_and_gradients(model, call)
    add_gates(model)
    use_video_sparse(model, sparsity=0.0)
    out, found = output_and_gradients(model, call)
    torch.testing.assert_close(out, expected_out, atol=TOLERANCE, rtol=TOLERANCE)
    assert_near(found, gradients)
    gate = found["blocks.0.attn1.to_gate_compress.weight"]
    assert gate.abs().max() > 0, "a gate of zeros still learns"


class InFloat64(WanVideoSparseProcessor):
    """Everything but the attention as it is; that one by its definition, with PyTorch's gradients."""

    def attend(self, attn, hidden_states, query, key, value):
        project = getattr(attn, "to_gate_compress", None)
        gate = None if project is None else project(hidden_states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        heads_first = (x.transpose(1, 2) for x in (query, key, value))
        out, _, _ = expected(*heads_first, gate, tile_of_tokens())
        return out.transpose(1, 2).flatten(2).to(query.dtype)


@pytest.mark.parametrize("gated", [True, False])
def test_video_sparse_and_its_gradients_in_a_whole_model(gated):
    torch.manual_seed(2)
    model, call = in_bf16(*wan(CANVAS, layers=1))  # of more, a choice of tiles may hang on the first one's roundings
    if gated:
        add_gates(model, random_gates(model))
    use_video_sparse(model, sparsity=1 - TOPK / TILES)
    out, found = output_and_gradients(model, call)
    for block in model.blocks:
        block.attn1.set_processor(InFloat64(block.attn1.processor.settings))
    wanted, gradients = output_and_gradients(model, call)
    torch.testing.assert_close(out, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    assert ("blocks.0.attn1.to_gate_compress.weight" in gradients) == gated
    assert_near(found, gradients)


def test_gates_of_a_checkpoint():
    model, call = in_bf16(*wan())
    use_video_sparse(model, sparsity=0.5)
    with torch.no_grad():
        plain = model(**call, return_dict=False)[0]
        ones = {name: torch.full_like(x, float(name.endswith("bias"))) for name, x in random_gates(model).items()}
        add_gates(model, ones)
        assert torch.equal(model(**call, return_dict=False)[0], plain), "no gate is a gate of ones"
        trained = random_gates(model)
        add_gates(model, {name.replace("to_gate", "attn1.to_gate"): x for name, x in trained.items()})
        assert not torch.equal(model(**call, return_dict=False)[0], plain)
        assert model.state_dict()["blocks.1.attn1.to_gate_compress.bias"].dtype == torch.bfloat16
    del trained["blocks.1.to_gate_compress.bias"]
    with pytest.raises(tw.InvalidArgument, match=r"no tensor blocks\.1\.to_gate_compress\.bias"):
        add_gates(model, trained)
    with pytest.raises(tw.InvalidArgument, match="transformer is a Linear"):
        use_video_sparse(torch.nn.Linear(2, 2), sparsity=0.5)


def test_processors_take_each_others_place():
    model, call = in_bf16(*wan())
    use_video_sparse(model, sparsity=0.5)
    use_sliding_tile(model, windows=(1, 1, 1))
    assert len(model._forward_pre_hooks) == 1
    with torch.no_grad():
        assert model(**call, return_dict=False)[0].isfinite().all()


@pytest.mark.parametrize("use", [lambda m: use_sliding_tile(m, (1, 1, 1)), lambda m: use_video_sparse(m, 0.5)])
def test_a_model_compiles_whole(use):
    model, call = in_bf16(*wan(layers=1))
    add_gates(model, random_gates(model))
    use(model)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(**call, return_dict=False)[0], model(**call, return_dict=False)[0])


def test_blocks_compile_where_the_text_length_is_read_outside():
    model, call = in_bf16(*hunyuan())
    use_sliding_tile(model, windows=(1, 1, 1))
    with torch.no_grad():
        eager = model(**call, return_dict=False)[0]
        for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
            block.compile(fullgraph=True, backend="aot_eager")
        assert torch.equal(model(**call, return_dict=False)[0], eager)
