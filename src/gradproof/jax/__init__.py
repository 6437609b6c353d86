"""JAX functions as they are: every equation of the jaxpr checked against calculus, each custom rule a node of
its own.

>>> import gradproof.jax, jax.numpy as jnp
>>> gradproof.jax.check_function(lambda x: jnp.sum(x**2), jnp.arange(3.0)).ok
True
"""

from __future__ import annotations

from .check import check_function, check_grads

__all__ = ["check_function", "check_grads"]
