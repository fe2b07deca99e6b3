"""A graph put together layer by layer, with random weights. Knows no topology: those are in `zoo.py`."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphs import IR, OPSET

N = "N"


class Net:
    """One float32 input `x` whose first axis is symbolic; each layer gives the name of what it made."""

    def __init__(self, name, shape):
        self.name, self.shape = name, shape
        self.random = np.random.default_rng(7)
        self.nodes, self.weights = [], []

    def weight(self, values, dtype=np.float32):
        name = f"w{len(self.weights)}"
        values = np.ascontiguousarray(values, dtype)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def noise(self, *shape, spread=1.0):
        return self.weight(self.random.standard_normal(shape) * spread)

    def op(self, kind, *inputs, outputs=1, **attributes):
        made = [f"v{len(self.nodes)}_{at}" for at in range(outputs)]
        node = helper.make_node(kind, list(inputs), made, f"{kind}_{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return made[0] if outputs == 1 else made

    def dense(self, x, ins, outs):
        w = self.noise(outs, ins, spread=(2 / ins) ** 0.5)
        return self.op("Gemm", x, w, self.noise(outs, spread=0.1), transB=1)

    def linear(self, x, ins, outs):
        """On the last axis of a tensor of any rank, as PyTorch exports it."""
        y = self.op("MatMul", x, self.noise(ins, outs, spread=ins**-0.5))
        return self.op("Add", y, self.noise(outs, spread=0.1))

    def conv(self, x, ins, outs, kernel, stride=1, pads=None, group=1, bias=True):
        """Pads as if stride were 1 and the size kept, unless given."""
        kernel = [kernel, kernel] if isinstance(kernel, int) else list(kernel)
        fan_in = ins // group * int(np.prod(kernel))
        inputs = [x, self.noise(outs, ins // group, *kernel, spread=(2 / fan_in) ** 0.5)]
        if bias:
            inputs.append(self.noise(outs, spread=0.1))
        pads = [k // 2 for k in kernel] * 2 if pads is None else pads
        strides = [stride] * len(kernel)
        return self.op("Conv", *inputs, kernel_shape=kernel, strides=strides, pads=pads, group=group)

    def norm(self, x, width):
        """Batch normalisation as after training: scales and variances near 1."""
        near_one = lambda: self.weight(self.random.uniform(0.8, 1.2, width))
        scale, variance = near_one(), near_one()
        shift, mean = self.noise(width, spread=0.1), self.noise(width, spread=0.1)
        return self.op("BatchNormalization", x, scale, shift, mean, variance)

    def relu(self, x):
        return self.op("Relu", x)

    def pool(self, x, kind, kernel, stride, pad=0, **more):
        sides = [pad] * 4 if isinstance(pad, int) else pad
        return self.op(kind, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=sides, **more)

    def flat_mean(self, x):
        return self.op("Flatten", self.op("GlobalAveragePool", x), axis=1)

    def done(self, *outputs) -> onnx.ModelProto:
        """The checked model of these (inner name, shape)."""
        for at, (inner, _) in enumerate(outputs):
            self.nodes.append(helper.make_node("Identity", [inner], [f"y{at}"], f"out_{at}"))
        value = helper.make_tensor_value_info
        x = value("x", TensorProto.FLOAT, [N, *self.shape])
        ys = [value(f"y{at}", TensorProto.FLOAT, shape) for at, (_, shape) in enumerate(outputs)]
        graph = helper.make_graph(self.nodes, self.name, [x], ys, self.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, producer_name="petrel", opset_imports=opsets, ir_version=IR)
        onnx.checker.check_model(made, full_check=True)
        return made
