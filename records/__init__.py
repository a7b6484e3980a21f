"""Layer 0: the values everybody speaks about, and nothing that acts.

Pure: no clock, no I/O, no logging, no randomness. A module here is given numbers and returns values,
so the same code runs in a node, in a simulation and in a test. What lives here:

* `ids`, `timestamps`, `intervals`, `consistency`: the vocabulary (see ARCHITECTURE.md).
* `columns`: the Arrow schema of rows; `block`: entries and the header of a block; `block_codec`: its bytes.
* `sidecar`: what a block tells without being opened; `visibility`: which copy of a row counts.
* `row_filters`, `token_filter`: which words and ids a row group can hold; `native`: the optional kernel.
* `predicates`: the part of a query plan that travels; `messages`: the node-to-node protocol.
* `envelope`: the one place that knows msgpack; `errors`: the whole error tree.

Why not a class per log record? A row object costs more than the whole budget of a row (3 µs). The unit
is a block of columns; a single record exists only at the edges, as a `dict`.
"""
