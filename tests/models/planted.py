"""Makes the planted models again: `python planted.py`. Each is one that a packer must see through.

Every reference is ONNX Runtime's answer with its optimiser off; see README.md.
"""

import recipes  # first: it sees to one thread  # noqa: I001

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from recipes import MODELS, SEED

import graphs

FOLDER = MODELS / "planted"
node = helper.make_node


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def made(name, nodes, constants, x, y):
    graph = helper.make_graph(nodes, name, [graphs.value(*x)], [graphs.value(*y)], constants)
    opset = [helper.make_opsetid("", graphs.OPSET)]
    model = helper.make_model(graph, producer_name="petrel", opset_imports=opset, ir_version=graphs.IR)
    onnx.checker.check_model(model, full_check=True)
    return model


def reference(path, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def save(name, model, x=None):
    path = FOLDER / f"{name}.onnx"
    onnx.save(model, path)
    if x is not None:
        np.save(FOLDER / f"{name}_x.npy", x)
        np.save(FOLDER / f"{name}_y.npy", reference(path, x))


def quantised_softmax():
    """Softmax between quantised tensors, as a QDQ export has it: 4 features to 3 classes."""
    random = np.random.default_rng(SEED)
    nodes = [
        node("Gemm", ["x", "w", "b"], ["logits"]),
        node("QuantizeLinear", ["logits", "s_in", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "s_in", "zero"], ["d"]),
        node("Softmax", ["d"], ["p"], axis=-1),
        node("QuantizeLinear", ["p", "s_out", "none"], ["qp"]),
        node("DequantizeLinear", ["qp", "s_out", "none"], ["probabilities"]),
    ]
    constants = [
        constant("w", random.normal(size=(4, 3))),
        constant("b", random.normal(size=3)),
        constant("s_in", 1 / 16),
        constant("s_out", 1 / 256),
        constant("zero", 128, np.uint8),
        constant("none", 0, np.uint8),
    ]
    model = made("softmax", nodes, constants, ("x", ["N", 4]), ("probabilities", ["N", 3]))
    save("softmax", model, random.normal(size=(12, 4)).astype(np.float32))


def external():
    """A dense layer whose weights lie in `external.data`."""
    random = np.random.default_rng(SEED)
    weights, bias = random.normal(size=(3, 64)), random.normal(size=3)
    model = graphs.dense("dense", "x", "y", weights, bias)
    x = random.normal(size=(12, 64)).astype(np.float32)
    # It would be added to what is there.
    (FOLDER / "external.data").unlink(missing_ok=True)
    onnx.save(
        model,
        FOLDER / "external.onnx",
        save_as_external_data=True,
        location="external.data",
        size_threshold=64,
    )
    np.save(FOLDER / "external_x.npy", x)
    np.save(FOLDER / "external_y.npy", reference(FOLDER / "external.onnx", x))


def quantised_operators():
    """A layer in QLinear operators and ONNX Runtime's own, as QuantFormat.QOperator makes it."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["m"]),
        node("QLinearSigmoid", ["m", "s", "z", "s", "z"], ["g"], domain="com.microsoft"),
        node("DequantizeLinear", ["g", "s", "z"], ["y"]),
    ]
    constants = [
        constant("w", np.arange(6).reshape(2, 3), np.uint8),
        constant("s", 1 / 16),
        constant("z", 0, np.uint8),
    ]
    graph = helper.make_graph(
        nodes, "qoperator", [graphs.value("x", ["N", 2])], [graphs.value("y", ["N", 3])], constants
    )
    opset = [helper.make_opsetid("", graphs.OPSET), helper.make_opsetid("com.microsoft", 1)]
    save("qoperator", helper.make_model(graph, opset_imports=opset, ir_version=graphs.IR))


def quantised_product():
    """One QLinear operator between float tensors: rare, and runs."""
    random = np.random.default_rng(SEED)
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["m"]),
        node("DequantizeLinear", ["m", "s", "z"], ["y"]),
    ]
    constants = [
        constant("w", np.arange(6).reshape(2, 3), np.uint8),
        constant("s", 1 / 16),
        constant("z", 0, np.uint8),
    ]
    x = random.uniform(0, 8, size=(12, 2)).astype(np.float32)
    save("qlinear", made("qlinear", nodes, constants, ("x", ["N", 2]), ("y", ["N", 3])), x)


def loop():
    """x + x + x, in a Loop."""
    body = helper.make_graph(
        [node("Identity", ["c"], ["c2"]), node("Add", ["a", "a"], ["a2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            graphs.value("a", None),
        ],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), graphs.value("a2", None)],
    )
    nodes = [node("Relu", ["x"], ["r"]), node("Loop", ["n", "", "r"], ["y"], body=body)]
    constants = [constant("n", 3, np.int64)]
    save("loop", made("loop", nodes, constants, ("x", ["N", 2]), ("y", ["N", 2])))


def sample():
    """The digits network on `digits/sample.png`, resized by Pillow and scaled as it was trained."""
    picture = recipes.image_from_png(MODELS / "digits" / "sample.png")
    np.save(FOLDER / "sample_y.npy", reference(MODELS / "digits" / "model.onnx", picture))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    quantised_softmax()
    external()
    quantised_operators()
    quantised_product()
    loop()
    sample()
