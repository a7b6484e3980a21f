"""Layer 1: ports to the outside, each with its real implementation.

Time, randomness, threads, logs, metrics, settings. Cores get them through constructors, so that a test or
a simulation can put its own in. `node/node.py` makes the real ones.
"""
