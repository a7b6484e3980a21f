"""A simulated shop: a dozen services that log what shops log, for demos, tests and benchmarks.

* `shop`: the model as data: services, request flows as trees of spans, what each span logs.
* `variants`: each flow, whole and broken at each of its spans, as flat tables (pure, made once).
* `generator`: requests drawn from a seed, turned into columns with numpy; no loop over rows.
* `formats`: the columns as JSON lines, CSV, plain lines or access logs (CLF).

The shares are a contract: 5 % error, 10 % warn, 85 % info and debug. Errors are never alone: a span
that fails makes each caller up to the root fail as well, and what would have come after it is absent.
The same seed, start and rate give the same bytes, whatever the sizes of the pieces taken.
"""
