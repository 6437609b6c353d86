"""What every worker would do first, done once in the server that they are forked from: imports, and SymPy's
own first steps.

No operation of torch's runs here: its threads would not come along.
"""

from importlib import import_module

from . import attempts  # noqa: F401 # loaded for those who are forked
from .assertions import assert_gradients
from .engines import torch  # noqa: F401
from .torch import check  # noqa: F401

import_module("torch.fx.experimental.symbolic_shapes")  # torch loads it at its first backward
assert_gradients(
    "y = tanh(X @ w + b)\nloss = mean(y**2)",
    {"X": [[1.0], [2.0]], "w": [0.0], "b": 0.0},
    {"w": [0.0], "b": 0.0},
)
