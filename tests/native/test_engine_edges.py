"""Graphs at their edges through every instruction set: tiny and odd pictures, windows larger than what they slide
over, values with many readers, sums and gates that no fusion fits. Integers equal the reference, floats are within
1e-4 of its largest value, and the number of threads changes no bit.
"""

from __future__ import annotations

import numpy as np
import pytest
from edge_graphs import CASES, build, encode_graph

from mobilenet.run import reference

pytest.importorskip("mobilenet._engine", reason="the engine is not built: pip install .")

from mobilenet.run.engine import Engine, isas


def assert_near(found, wanted, what):
    assert found.dtype == wanted.dtype and found.shape == wanted.shape, what
    if wanted.dtype != np.float32:
        np.testing.assert_array_equal(found, wanted, err_msg=what)
    else:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max(), err_msg=what)


@pytest.mark.parametrize("name", CASES)
def test_edges(name):
    graph, weights, batch = build(name)
    wanted = reference.run(graph, weights, batch)
    for output, values in wanted.items():  # an answer of one number everywhere would hide most mistakes
        if values.dtype != np.int64:  # of few classes one may be the largest everywhere
            assert values[0].size < 20 or len(np.unique(values)) > 3, output
    data = encode_graph(graph, weights)
    for isa in isas():
        answer = Engine(data, isa=isa, threads=1).run(batch)
        shared = Engine(data, isa=isa, threads=3).run(batch)
        assert answer.keys() == wanted.keys()
        for output in wanted:
            assert_near(answer[output], wanted[output], f"{isa}, output {output}")
            np.testing.assert_array_equal(shared[output], answer[output], err_msg=f"{isa}, threads, {output}")
