"""A training step of one attention layer: gradients, bf16 autocast, torch.compile, activation checkpointing."""

import tilewright
import torch
from torch.utils.checkpoint import checkpoint

device = "cuda" if torch.cuda.is_available() else "cpu"
canvas, heads, head_dim = (4, 8, 8), 2, 64
pattern = tilewright.SlidingTile(canvas, windows=(1, 3, 3), tile=(4, 4, 4))


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(heads * head_dim, 3 * heads * head_dim)
        self.out = torch.nn.Linear(heads * head_dim, heads * head_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, heads, head_dim)).unbind(2)  # read as they are: nothing is copied
        return x + self.out(tilewright.attention(q, k, v, pattern).flatten(2))


layer = Layer().to(device)


def checkpointed(x: torch.Tensor) -> torch.Tensor:
    return checkpoint(layer, x, use_reentrant=False)


# On a GPU, torch.compile's own default does; a laptop may have no C++ compiler for it.
step = torch.compile(checkpointed, fullgraph=True, backend="inductor" if device == "cuda" else "aot_eager")
x = torch.randn(1, 4 * 8 * 8, heads * head_dim, device=device)
with torch.autocast(device, dtype=torch.bfloat16):
    loss = step(x).float().square().mean()
loss.backward()
print(f"loss {loss.item():.4f}, gradient of the projection {layer.qkv.weight.grad.norm().item():.4f}")
