"""Ten public models as their packages build them: the right one is verified, and a factor planted in the
backward of one of its nodes is found at that node, in float64, float32 and bfloat16.

The models are small and their numbers random; nothing is downloaded. A model whose package is not installed
is left out, and said. Run with

    pip install transformers torch_geometric torchdiffeq zuko
    python benchmarks/models.py [--only 'mamba|swin'] [--seed 0]

It takes about a minute, and exits with 1 where a right model does not pass, or a planted factor is not
found at its node.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.nn import functional

from gradproof import Report, Verdict, check_function
from gradproof.progress import tracked

# The factor that is planted: in each dtype above what rounding explains.
FACTORS = {torch.float64: 1.001, torch.float32: 1.001, torch.bfloat16: 1.05}
VOCABULARY = 20


class Called(nn.Module):
    """A model and what it is called with: a function without arguments that returns a plain tensor, of the
    model's output the one of that name."""

    def __init__(self, net: nn.Module, output: str = "", **given: torch.Tensor) -> None:
        super().__init__()
        self.net, self.output, self.names = net, output, tuple(given)
        for name, value in given.items():
            self.register_buffer(name, value)  # so that it goes to another dtype with the model

    def forward(self) -> torch.Tensor:
        came = self.net(**{name: getattr(self, name) for name in self.names})
        return getattr(came, self.output) if self.output else came


class Planted(torch.autograd.Function):
    """The identity, and a backward that is off by a factor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None]:
        return cotangent * ctx.factor, None


def tokens(length: int = 6) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (1, length))


def images(size: int = 16) -> torch.Tensor:
    return torch.randn(2, 3, size, size)


def of_transformers(
    name: str, config: str, output: str, given: Mapping[str, Callable[[], torch.Tensor]], **settings: Any
) -> Callable[[], nn.Module]:
    """What builds a model of `transformers`, by its class and its configuration's, without dropout."""

    def build() -> nn.Module:
        library = import_module("transformers")
        library.logging.set_verbosity_error()  # no words on special tokens above VOCABULARY, and slow kernels
        net = getattr(library, name)(getattr(library, config)(**settings))
        return Called(net.eval(), output, **{key: drawn() for key, drawn in given.items()})

    return build


class GAT(nn.Module):
    """Graph attention in two layers, the first of two heads."""

    def __init__(self) -> None:
        super().__init__()
        layer = import_module("torch_geometric.nn").GATConv
        self.first, self.second = layer(5, 4, heads=2), layer(8, 3)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.second(functional.elu(self.first(x, edge_index)), edge_index)


def gat() -> nn.Module:
    """On a ring of six nodes with three chords."""
    ring = torch.stack([torch.arange(6), torch.arange(6).roll(-1)])
    chords = torch.tensor([[0, 3, 1], [3, 0, 4]])
    return Called(GAT(), x=torch.randn(6, 5), edge_index=torch.cat([ring, ring.flip(0), chords], dim=1))


class ODENet(nn.Module):
    """Two linear layers, and between them the solution of y' = MLP(y), by Runge and Kutta in fixed steps."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(3, 6), nn.Linear(6, 2)
        self.slope = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 6))

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        solve = import_module("torchdiffeq").odeint
        path = solve(lambda t, y: self.slope(y), self.before(x), times, method="rk4")
        return self.after(path[-1])


def ode_net() -> nn.Module:
    return Called(ODENet(), x=torch.randn(3, 3), times=torch.linspace(0, 1, 3))


class LogProbability(nn.Module):
    """Of a flow, what its training makes large."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.flow().log_prob(x)


def spline_flow() -> nn.Module:
    flows = import_module("zuko").flows
    flow = flows.NSF(3, transforms=2, bins=4, hidden_features=(16,))
    return Called(LogProbability(flow), x=torch.randn(4, 3))


@dataclass(frozen=True)
class Model:
    """How it is built, in float32, where `package` is installed; and the submodule whose result goes through
    the planted node, as often as it is called."""

    name: str
    package: str
    build: Callable[[], nn.Module]
    planted: str


TOKENS = {"input_ids": tokens}
BOTH_TOKENS = {"input_ids": tokens, "decoder_input_ids": partial(tokens, 5)}
IMAGES = {"pixel_values": images}
WORDS = {"vocab_size": VOCABULARY, "use_cache": False}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, **WORDS}
SWIN = {
    "image_size": 16,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [2, 1],
    "num_heads": [1, 2],
    "window_size": 4,
}
RESNET = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}

# Mamba's kernels for GPUs are not needed: the package has the same in plain torch.
MODELS = (
    Model(
        "GPT-2",
        "transformers",
        of_transformers(
            "GPT2LMHeadModel", "GPT2Config", "logits", TOKENS, n_embd=16, n_layer=2, n_head=2, **WORDS
        ),
        "net.transformer.h.0.mlp",
    ),
    Model(
        "T5",
        "transformers",
        of_transformers("T5ForConditionalGeneration", "T5Config", "logits", BOTH_TOKENS, **T5),
        "net.encoder.block.0.layer.1.DenseReluDense",
    ),
    Model(
        "BERT",
        "transformers",
        of_transformers("BertModel", "BertConfig", "last_hidden_state", TOKENS, **LAYERS, **WORDS),
        "net.encoder.layer.0.intermediate",
    ),
    Model(
        "LLaMA",
        "transformers",
        of_transformers(
            "LlamaForCausalLM", "LlamaConfig", "logits", TOKENS, num_key_value_heads=1, **LAYERS, **WORDS
        ),
        "net.model.layers.0.mlp",
    ),
    Model(
        "Mamba",
        "transformers",
        of_transformers(
            "MambaForCausalLM",
            "MambaConfig",
            "logits",
            TOKENS,
            hidden_size=8,
            state_size=4,
            num_hidden_layers=2,
            **WORDS,
        ),
        "net.backbone.layers.0",
    ),
    Model(
        "Swin",
        "transformers",
        of_transformers("SwinModel", "SwinConfig", "last_hidden_state", IMAGES, **SWIN),
        "net.encoder.layers.0.blocks.1.mlp",
    ),
    Model(
        "ResNet",
        "transformers",
        of_transformers("ResNetModel", "ResNetConfig", "last_hidden_state", IMAGES, **RESNET),
        "net.encoder.stages.0",
    ),
    Model("GAT", "torch_geometric", gat, "net.first"),
    Model("ODE net", "torchdiffeq", ode_net, "net.slope.1"),
    Model("neural spline flow", "zuko", spline_flow, "net.flow.transform.transforms.0.hyper.1"),
)


def built(model: Model, dtype: torch.dtype, seed: int, factor: float | None = None) -> nn.Module:
    """The same numbers in every run; with a factor, also the planted node."""
    torch.manual_seed(seed)
    net = model.build().to(dtype)
    if factor is not None:
        before = net.get_submodule(model.planted)
        before.register_forward_hook(lambda module, given, came: Planted.apply(came, factor))
    return net


def blamed(report: Report) -> set[str]:
    """The nodes that are wrong by themselves."""
    wrong = (f for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited)
    return {f.node for f in wrong if f.kind == "local"}


def is_found(planted: Report, right: Report) -> bool:
    """Whether the planted node is wrong by itself, and else none that is not so without it."""
    more = blamed(planted) - blamed(right)
    return bool(more) and all("PlantedBackward" in node for node in more)


def told(report: Report) -> str:
    """What does not pass of a model, its own error before an inherited one."""
    bad = sorted((f for f in report.findings if not f.verdict.passes), key=lambda f: f.inherited)
    return f"{bad[0].verdict}: {bad[0].kind} of {bad[0].node} ({bad[0].place}): {bad[0].note}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a pattern: models of such a name alone")
    parser.add_argument("--seed", type=int, default=0, help="of the models' numbers")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    asked = [model for model in MODELS if re.search(arguments.only, model.name, re.IGNORECASE)]
    there = [model for model in asked if find_spec(model.package) is not None]
    rows, notes, faults = [], [], 0
    jobs = list(product(there, FACTORS))
    for model, dtype in tracked(jobs, len(jobs), lambda job: f"{job[0].name}, {job[1]}"):
        start = time.perf_counter()
        right = check_function(built(model, dtype, arguments.seed))
        seconds = time.perf_counter() - start
        planted = check_function(built(model, dtype, arguments.seed, FACTORS[dtype]))
        found = is_found(planted, right)
        if not right.ok:
            notes.append(f"{model.name}, {right.dtype}: {told(right)}")
        faults += not right.ok or not found
        cells = model.name, right.dtype, str(right.verdict), f"{seconds:.1f}", len(right.findings)
        rows.append([*cells, "found at its node" if found else f"MISSED ({planted.verdict})"])
    print(tabulate(rows, ["model", "dtype", "verdict", "seconds", "comparisons", "planted"]))
    notes += [f"{m.name}: left out, {m.package} is not installed" for m in asked if m not in there]
    for line in notes:
        print(line)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
