"""The front for torch functions: a run is recorded as it is, and its operations become nodes in index
notation.

`recording` runs the function and keeps what torch did, with torch's own numbers; `memory` knows which node's
entry lies where in a tensor's storage; `operations` is the table of torch's operations as formulas;
`lowering` makes the nodes.
"""
