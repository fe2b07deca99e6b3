"""The ONNX graphs, built node by node. Knows nothing of training or of files."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 17, 8


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(name, nodes, weights, x, y, more=()) -> onnx.ModelProto:
    """A checked model of one output; `x` and `y` are (name, shape), `x` may be several, of any kind."""
    inputs = x if isinstance(x, list) else [x]
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(w, np.float32), key)
        for key, w in weights.items()
    ]
    graph = helper.make_graph(nodes, name, [value(*port) for port in inputs], [value(*y)], [*constants, *more])
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


def pooled_words(weights) -> onnx.ModelProto:
    """The network of `wordpool.py`: ids and mask, both int64."""
    node = helper.make_node
    nodes = [
        node("Gather", ["embedding", "input_ids"], ["each"]),
        node("Cast", ["attention_mask"], ["there"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["there", "last"], ["column"]),
        node("Mul", ["each", "column"], ["kept"]),
        node("ReduceSum", ["kept", "second"], ["total"], keepdims=0),
        node("ReduceSum", ["there", "second"], ["count"], keepdims=1),
        node("Div", ["total", "count"], ["mean"]),
        node("Gemm", ["mean", "dense_w", "dense_b"], ["logits"], transB=1),
    ]
    axes = [numpy_helper.from_array(np.array([axis]), name) for axis, name in ((2, "last"), (1, "second"))]
    ids = [(name, ["N", "T"], TensorProto.INT64) for name in ("input_ids", "attention_mask")]
    return model("notes", nodes, weights, ids, ("logits", ["N", len(weights["dense_b"])]), axes)


def conv1d(weights, channels, times, stride) -> onnx.ModelProto:
    """The network of `conv1d.py`."""
    node = helper.make_node
    nodes = [
        node("Conv", ["window", "conv1_w", "conv1_b"], ["c1"], strides=[stride]),
        node("Relu", ["c1"], ["h1"]),
        node("Conv", ["h1", "conv2_w", "conv2_b"], ["c2"], strides=[stride]),
        node("Relu", ["c2"], ["h2"]),
        node("GlobalAveragePool", ["h2"], ["pooled"]),
        node("Flatten", ["pooled"], ["mean"], axis=1),
        node("Gemm", ["mean", "dense_w", "dense_b"], ["logits"], transB=1),
    ]
    x = ("window", ["N", channels, times])
    return model("vibration", nodes, weights, x, ("logits", ["N", len(weights["dense_b"])]))


def layers(name, x, y, pairs) -> onnx.ModelProto:
    """Fully connected layers with relu between them; `pairs` are (w [in, out], b)."""
    nodes, weights, at = [], {}, x
    for i, (w, b) in enumerate(pairs):
        weights |= {f"w{i}": w, f"b{i}": b}
        out = y if i == len(pairs) - 1 else f"h{i}"
        nodes.append(helper.make_node("Gemm", [at, f"w{i}", f"b{i}"], [f"{out}" if out == y else f"a{i}"]))
        if out != y:
            nodes.append(helper.make_node("Relu", [f"a{i}"], [out]))
        at = out
    return model(name, nodes, weights, (x, ["N", pairs[0][0].shape[0]]), (y, ["N", pairs[-1][0].shape[1]]))


def identity(name, shape) -> onnx.ModelProto:
    return model(name, [helper.make_node("Identity", ["image"], ["same"])], {}, ("image", shape), ("same", shape))
