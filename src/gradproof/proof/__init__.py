"""The reference: graph, calculus, ball arithmetic and the rounding model. Nothing here knows an engine."""
