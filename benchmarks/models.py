"""Ten public models as their packages build them: the right one is verified, and a factor planted in the
backward of one of its nodes is found at that node, in every dtype.

The models are small and have random numbers; nothing is downloaded. Transformers, Mamba and the residual net are
those of `transformers`; the others come from `torch_geometric`, `torchdiffeq` and `zuko`. A model whose
package is not there is left out, and said. Run with

    pip install transformers torch_geometric torchdiffeq zuko
    python benchmarks/models.py [--only mamba] [--dtype float64] [--told]

It takes some minutes, and exits with 1 where one is not as it should be.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from gradproof import Report, Verdict, check_function
from gradproof.progress import tracked

# The factor that is planted, well above what rounding explains in that dtype.
FACTORS = {"float64": 1.001, "float32": 1.001, "bfloat16": 1.05}


class Called(nn.Module):
    """A model and what it is called with, as a function without arguments that returns a plain tensor."""

    def __init__(self, net: nn.Module, output: str = "", **given: torch.Tensor) -> None:
        super().__init__()
        self.net, self.output, self.names = net, output, tuple(given)
        for name, value in given.items():
            self.register_buffer(name, value)

    def forward(self) -> torch.Tensor:
        told = self.net(**{name: getattr(self, name) for name in self.names})
        return getattr(told, self.output) if self.output else told


class Planted(torch.autograd.Function):
    """The identity, whose backward is off by a factor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None]:
        return cotangent * ctx.factor, None


def tokens(length: int = 6) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (1, length))


VOCABULARY = 20


def of_transformers(model: str, config: str, output: str, given: Any, **settings: Any) -> nn.Module:
    """A model of `transformers` in a small configuration, without dropout."""
    library = import_module("transformers")
    net = getattr(library, model)(getattr(library, config)(**settings))
    return Called(net.eval(), output, **{name: make() for name, make in given.items()})


def causal(model: str, config: str, **settings: Any) -> Callable[[], nn.Module]:
    """A language model: logits of some fixed tokens."""
    settings |= {"vocab_size": VOCABULARY, "use_cache": False}
    return partial(of_transformers, model, config, "logits", {"input_ids": tokens}, **settings)


def of_images(model: str, config: str, size: int, **settings: Any) -> Callable[[], nn.Module]:
    """A model of two images: its last feature map."""
    given = {"pixel_values": lambda: torch.randn(2, 3, size, size)}
    return partial(of_transformers, model, config, "last_hidden_state", given, **settings)


class GAT(nn.Module):
    """Two layers of graph attention, as in the paper: several heads, then one."""

    def __init__(self) -> None:
        super().__init__()
        layer = import_module("torch_geometric.nn").GATConv
        self.first, self.second = layer(5, 4, heads=2), layer(8, 3, heads=1)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.second(nn.functional.elu(self.first(x, edge_index)), edge_index)


def gat() -> nn.Module:
    """On a ring of six nodes and some chords."""
    ring = torch.stack([torch.arange(6), (torch.arange(6) + 1) % 6])
    chords = torch.tensor([[0, 3, 1], [3, 0, 4]])
    return Called(GAT(), x=torch.randn(6, 5), edge_index=torch.cat([ring, ring.flip(0), chords], dim=1))


class ODENet(nn.Module):
    """Two layers around the solution of an ordinary differential equation whose right-hand side is an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.odeint = import_module("torchdiffeq").odeint
        self.before, self.after = nn.Linear(3, 6), nn.Linear(6, 2)
        self.rate = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 6))

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        path = self.odeint(lambda t, y: self.rate(y), self.before(x), times, method="rk4")
        return self.after(path[-1])


def ode_net() -> nn.Module:
    return Called(ODENet(), x=torch.randn(3, 3), times=torch.linspace(0, 1, 3))


class LogProbability(nn.Module):
    """Of a flow."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.flow().log_prob(x)


def neural_spline_flow() -> nn.Module:
    flow = import_module("zuko").flows.NSF(3, transforms=2, bins=4, hidden_features=(16,))
    return Called(LogProbability(flow), x=torch.randn(4, 3))


@dataclass(frozen=True)
class Model:
    """How it is built, in float32, and the submodule after which the factor is planted."""

    name: str
    build: Callable[[], nn.Module]
    planted: str


ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}

MODELS = (
    Model(
        "GPT-2",
        causal("GPT2LMHeadModel", "GPT2Config", n_embd=16, n_layer=2, n_head=2, n_positions=16),
        "net.transformer.h.0.mlp",
    ),
    Model(
        "T5",
        partial(
            of_transformers,
            "T5ForConditionalGeneration",
            "T5Config",
            "logits",
            {"input_ids": tokens, "decoder_input_ids": partial(tokens, 5)},
            **{"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
            **{"vocab_size": VOCABULARY, "use_cache": False, "decoder_start_token_id": 0},
        ),
        "net.encoder.block.0.layer.1.DenseReluDense",
    ),
    Model(
        "BERT",
        partial(
            of_transformers,
            "BertModel",
            "BertConfig",
            "last_hidden_state",
            {"input_ids": tokens},
            vocab_size=VOCABULARY,
            **ENCODER,
        ),
        "net.encoder.layer.0.intermediate",
    ),
    Model(
        "LLaMA",
        causal("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=1, **ENCODER),
        "net.model.layers.0.mlp",
    ),
    Model(
        "Mamba",
        causal("MambaForCausalLM", "MambaConfig", hidden_size=8, state_size=4, num_hidden_layers=2),
        "net.backbone.layers.0",
    ),
    Model(
        "Swin",
        of_images(
            "SwinModel",
            "SwinConfig",
            16,
            image_size=16,
            patch_size=2,
            embed_dim=8,
            depths=[2, 1],
            num_heads=[1, 2],
            window_size=4,
        ),
        "net.encoder.layers.0.blocks.1.mlp",
    ),
    Model(
        "ResNet",
        of_images(
            "ResNetModel",
            "ResNetConfig",
            16,
            embedding_size=4,
            hidden_sizes=[4, 8],
            depths=[1, 1],
            layer_type="basic",
        ),
        "net.encoder.stages.0",
    ),
    Model("GAT", gat, "net.first"),
    Model("ODE net", ode_net, "net.rate.1"),
    Model("neural spline flow", neural_spline_flow, "net.flow.transform.transforms.0.hyper.1"),
)


def built(model: Model, dtype: str, factor: float | None = None) -> nn.Module:
    """The same numbers every time; with a factor, it stands in the backward of one node."""
    torch.manual_seed(0)
    net = model.build().to(getattr(torch, dtype))
    if factor is not None:
        at = net.get_submodule(model.planted)
        at.register_forward_hook(lambda module, inputs, output: Planted.apply(output, factor))
    return net


def is_found(report: Report) -> bool:
    """Whether the planted node, and no other, is wrong by itself."""
    own = {f.node for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited and f.kind == "local"}
    return report.verdict is Verdict.WRONG and bool(own) and all("Planted" in node for node in own)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--dtype")
    parser.add_argument("--told", action="store_true")
    a = parser.parse_args()
    for m in MODELS:
        if not re.search(a.only, m.name, re.I):
            continue
        for dtype in [a.dtype] if a.dtype else FACTORS:
            s = time.perf_counter()
            r = check_function(built(m, dtype))
            s = time.perf_counter() - s
            p = check_function(built(m, dtype, FACTORS[dtype]))
            print(m.name, dtype, r.verdict, f"{s:.1f}", len(r.findings), p.verdict, is_found(p), flush=True)
            if not r.ok:
                for f in r.findings:
                    if not f.verdict.passes:
                        print("   ", f.verdict, f.kind, f.node, f.wrt, f.index, f.exact, f.value, f.ulp, f.allowed_ulp, f.place, f.note[:300])
            if not is_found(p):
                for f in p.findings:
                    if f.verdict == "wrong" and not f.inherited:
                        print("   P", f.verdict, f.kind, f.node, f.wrt, f.index, f.exact, f.value, f.ulp, f.allowed_ulp, f.place, f.note[:300])
    return 0

if __name__ == "__main__":
    sys.exit(main())
