"""The ONNX graphs, built node by node. Knows nothing of training or of files."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 17, 8


def value(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(name, nodes, weights, x, y) -> onnx.ModelProto:
    """A checked model of one float32 input and one output; `x` and `y` are (name, shape)."""
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(w, np.float32), key)
        for key, w in weights.items()
    ]
    graph = helper.make_graph(nodes, name, [value(*x)], [value(*y)], constants)
    opset = [helper.make_opsetid("", OPSET)]
    made = helper.make_model(graph, producer_name="petrel", opset_imports=opset, ir_version=IR)
    onnx.checker.check_model(made, full_check=True)
    return made


def dense(name, x, y, w, b) -> onnx.ModelProto:
    """y = x w' + b, with `w` [out, in]."""
    nodes = [helper.make_node("Gemm", [x, "w", "b"], [y], transB=1)]
    outs, ins = w.shape
    return model(name, nodes, {"w": w, "b": b}, (x, ["N", ins]), (y, ["N", outs]))


def cnn_nodes(logits):
    """The network of `cnn.py`; its weights are named as there."""
    node = helper.make_node
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    return [
        node("Div", ["image", "unit"], ["x"]),
        node("Conv", ["x", "conv1_w", "conv1_b"], ["c1"], **conv),
        node("Relu", ["c1"], ["h1"]),
        node("Conv", ["h1", "conv2_w", "conv2_b"], ["c2"], **conv),
        node("Relu", ["c2"], ["h2"]),
        node("MaxPool", ["h2"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["pooled"], ["flat"], axis=1),
        node("Gemm", ["flat", "dense_w", "dense_b"], [logits], transB=1),
    ]


IMAGE, LOGITS = ("image", ["N", 1, 8, 8]), ("logits", ["N", 10])


def cnn(weights, unit) -> onnx.ModelProto:
    return model("digits", cnn_nodes("logits"), weights | {"unit": unit}, IMAGE, LOGITS)


def cnn_with_temperature(weights, unit, threshold, typical) -> onnx.ModelProto:
    """logits * sqrt(threshold - mean(image)) / typical: no number for a bright image."""
    node = helper.make_node
    nodes = [
        *cnn_nodes("cold"),
        node("Flatten", ["image"], ["pixels"], axis=1),
        node("ReduceMean", ["pixels"], ["brightness"], axes=[1], keepdims=1),
        node("Sub", ["threshold", "brightness"], ["darkness"]),
        node("Sqrt", ["darkness"], ["root"]),
        node("Div", ["root", "typical"], ["temperature"]),
        node("Mul", ["cold", "temperature"], ["logits"]),
    ]
    constants = {"unit": unit, "threshold": threshold, "typical": typical}
    return model("digits", nodes, weights | constants, IMAGE, LOGITS)
