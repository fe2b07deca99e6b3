"""The models that the engine's bench runs: real topologies at their real sizes with random weights, and
small ones that scikit-learn fits; then the example models beside this file. `zoo.py FOLDER` writes
FOLDER/<name>/{model.onnx, rows<rows>.npz} (`zoo.py FOLDER examples` the examples alone), arrays as in the examples' golden.npz, the answers being ONNX
Runtime's, and prints one line of JSON for each model."""

import one_thread  # noqa: F401

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from layers import N, Net


def autoencoder():
    """MLPerf Tiny's anomaly detector: 640 → 4 x 128 → 8 → 4 x 128 → 640, batch-normalised (folded)."""
    net, x, ins = Net("autoencoder", [640]), "x", 640
    for outs in [128, 128, 128, 128, 8, 128, 128, 128, 128]:
        x, ins = net.relu(net.dense(x, ins, outs)), outs
    return net.done((net.dense(x, ins, 640), [N, 640]))


def recurrent(kind):
    """Human activity from 128 steps of 9 channels: one layer of 64 units, then 6 classes."""
    gates = {"GRU": 3, "LSTM": 4}[kind]
    net, units = Net(kind.lower(), [128, 9]), 64
    steps = net.op("Transpose", "x", perm=[1, 0, 2])
    weights = [net.noise(1, gates * units, width, spread=0.1) for width in (9, units)]
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    bias = net.noise(1, 2 * gates * units, spread=0.1)
    outputs = 2 if kind == "GRU" else 3
    last = net.op(kind, steps, *weights, bias, outputs=outputs, hidden_size=units, **more)[1]
    last = net.op("Squeeze", last, net.weight([0], np.int64))
    return net.done((net.dense(last, units, 6), [N, 6]))


def transformer():
    """3 encoder layers of 128, 4 heads, 512 within, on 64 steps of 16 channels."""
    steps, width, heads, inner = 64, 128, 4, 512
    net = Net("transformer", [steps, 16])
    split = net.weight([0, steps, heads, width // heads], np.int64)
    joined = net.weight([0, steps, width], np.int64)
    root, half, one = net.weight(2**0.5), net.weight(0.5), net.weight(1.0)
    scale = net.weight((width // heads) ** -0.5)
    x = net.op("Add", net.linear("x", 16, width), net.noise(1, steps, width, spread=0.1))

    def normed(x):
        near_one = net.weight(net.random.uniform(0.8, 1.2, width))
        return net.op("LayerNormalization", x, near_one, net.noise(width, spread=0.1), axis=-1, epsilon=1e-5)

    def head(x, perm):
        return net.op("Transpose", net.op("Reshape", net.linear(x, width, width), split), perm=perm)

    for _ in range(3):
        q, k, v = head(x, [0, 2, 1, 3]), head(x, [0, 2, 3, 1]), head(x, [0, 2, 1, 3])
        scores = net.op("Softmax", net.op("Mul", net.op("MatMul", q, k), scale), axis=-1)
        seen = net.op("Transpose", net.op("MatMul", scores, v), perm=[0, 2, 1, 3])
        seen = net.linear(net.op("Reshape", seen, joined), width, width)
        x = normed(net.op("Add", x, seen))
        hidden = net.linear(x, width, inner)
        gate = net.op("Add", net.op("Erf", net.op("Div", hidden, root)), one)
        gelu = net.op("Mul", net.op("Mul", hidden, gate), half)
        x = normed(net.op("Add", x, net.linear(gelu, inner, width)))
    pooled = net.op("ReduceMean", x, axes=[1], keepdims=0)
    return net.done((net.dense(pooled, width, 6), [N, 6]))


def accelerometer():
    """1D convolutions over 128 samples of 3 axes: 32, 64, 128 wide, halved each time; 6 classes."""
    net, x, ins = Net("accelerometer", [3, 128]), "x", 3
    for outs, kernel in [(32, 7), (64, 5), (128, 3)]:
        x = net.relu(net.conv(x, ins, outs, [kernel]))
        x, ins = net.op("MaxPool", x, kernel_shape=[2], strides=[2]), outs
    return net.done((net.dense(net.flat_mean(x), ins, 6), [N, 6]))


def depthwise_block(net, x, ins, outs, stride=1):
    x = net.relu(net.conv(x, ins, ins, 3, stride, group=ins))
    return net.relu(net.conv(x, ins, outs, 1))


def mobilenet():
    """MLPerf Tiny's visual wake words: MobileNet v1 x 0.25 on 96x96."""
    net = Net("mobilenet", [3, 96, 96])
    x, ins = net.relu(net.conv("x", 3, 8, 3, 2)), 8
    strided = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]
    for outs, stride in strided:
        x, ins = depthwise_block(net, x, ins, outs, stride), outs
    return net.done((net.dense(net.flat_mean(x), ins, 2), [N, 2]))


def keywords():
    """MLPerf Tiny's keyword spotting: DS-CNN on 49x10 features."""
    net = Net("keywords", [1, 49, 10])
    x = net.relu(net.conv("x", 1, 64, [10, 4], 2, pads=[4, 1, 5, 1]))
    for _ in range(4):
        x = depthwise_block(net, x, 64, 64)
    return net.done((net.dense(net.flat_mean(x), 64, 12), [N, 12]))


def squeezenet():
    """SqueezeNet 1.1 on 224x224."""
    net = Net("squeezenet", [3, 224, 224])

    def fire(x, ins, squeeze, expand):
        x = net.relu(net.conv(x, ins, squeeze, 1))
        both = [net.relu(net.conv(x, squeeze, expand, kernel)) for kernel in (1, 3)]
        return net.op("Concat", *both, axis=1)

    x = net.pool(net.relu(net.conv("x", 3, 64, 3, 2, pads=[0] * 4)), "MaxPool", 3, 2)
    x = fire(fire(x, 64, 16, 64), 128, 16, 64)
    x = net.pool(x, "MaxPool", 3, 2)
    x = fire(fire(x, 128, 32, 128), 256, 32, 128)
    x = net.pool(x, "MaxPool", 3, 2)
    x = fire(fire(x, 256, 48, 192), 384, 48, 192)
    x = fire(fire(x, 384, 64, 256), 512, 64, 256)
    x = net.relu(net.conv(x, 512, 1000, 1))
    return net.done((net.flat_mean(x), [N, 1000]))


def shufflenet():
    """ShuffleNet v2 x 1.0 on 224x224."""
    net = Net("shufflenet", [3, 224, 224])

    def shuffle(x, width, side):
        grouped = net.op("Reshape", x, net.weight([0, 2, width // 2, side, side], np.int64))
        mixed = net.op("Transpose", grouped, perm=[0, 2, 1, 3, 4])
        return net.op("Reshape", mixed, net.weight([0, width, side, side], np.int64))

    def branch(x, ins, outs, stride):
        x = net.relu(net.conv(x, ins, outs, 1))
        return net.relu(net.conv(net.conv(x, outs, outs, 3, stride, group=outs), outs, outs, 1))

    x = net.pool(net.relu(net.conv("x", 3, 24, 3, 2)), "MaxPool", 3, 2, 1)
    ins = 24
    for outs, units, side in [(116, 4, 28), (232, 8, 14), (464, 4, 7)]:
        half = outs // 2
        passed = net.relu(net.conv(net.conv(x, ins, ins, 3, 2, group=ins), ins, half, 1))
        x = shuffle(net.op("Concat", passed, branch(x, ins, half, 2), axis=1), outs, side)
        for _ in range(units - 1):
            kept, worked = net.op("Split", x, net.weight([half, half], np.int64), outputs=2, axis=1)
            x = shuffle(net.op("Concat", kept, branch(worked, half, half, 1), axis=1), outs, side)
        ins = outs
    x = net.relu(net.conv(x, ins, 1024, 1))
    return net.done((net.dense(net.flat_mean(x), 1024, 1000), [N, 1000]))


def resnet():
    """ResNet-50 (v1.5) on 224x224, batch normalisation as exported."""
    net = Net("resnet50", [3, 224, 224])

    def normed(x, ins, outs, kernel, stride=1):
        return net.norm(net.conv(x, ins, outs, kernel, stride, bias=False), outs)

    x = net.pool(net.relu(normed("x", 3, 64, 7, 2)), "MaxPool", 3, 2, 1)
    ins = 64
    for inner, blocks, first in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for block in range(blocks):
            stride = first if block == 0 else 1
            y = net.relu(normed(x, ins, inner, 1))
            y = net.relu(normed(y, inner, inner, 3, stride))
            y = normed(y, inner, inner * 4, 1)
            beside = normed(x, ins, inner * 4, 1, stride) if block == 0 else x
            x, ins = net.relu(net.op("Mul", net.op("Add", y, beside), net.weight(0.7))), inner * 4
    return net.done((net.dense(net.flat_mean(x), 2048, 1000), [N, 1000]))


# Of each block: 1x1; 3x3 reduced and full; double 3x3 reduced and full; pool and its projection.
# A block without a 1x1 halves the size and passes its pool on as it is.
INCEPTION = [
    (64, 64, 64, 64, 96, "AveragePool", 32),
    (64, 64, 96, 64, 96, "AveragePool", 64),
    (0, 128, 160, 64, 96, "MaxPool", 0),
    (224, 64, 96, 96, 128, "AveragePool", 128),
    (192, 96, 128, 96, 128, "AveragePool", 128),
    (160, 128, 160, 128, 160, "AveragePool", 128),
    (96, 128, 192, 160, 192, "AveragePool", 128),
    (0, 128, 192, 192, 256, "MaxPool", 0),
    (352, 192, 320, 160, 224, "AveragePool", 128),
    (352, 192, 320, 192, 224, "MaxPool", 128),
]


def inception():
    """BN-Inception (Inception v2) on 224x224."""
    net = Net("inception-v2", [3, 224, 224])

    def layer(x, ins, outs, kernel, stride=1):
        return net.relu(net.norm(net.conv(x, ins, outs, kernel, stride, bias=False), outs))

    x = net.pool(layer("x", 3, 64, 7, 2), "MaxPool", 3, 2, 1)
    x = net.pool(layer(layer(x, 64, 64, 1), 64, 192, 3), "MaxPool", 3, 2, 1)
    ins = 192
    for one, reduced, three, double_reduced, double, pool, projected in INCEPTION:
        stride = 1 if one else 2
        parts = [layer(x, ins, one, 1)] if one else []
        parts.append(layer(layer(x, ins, reduced, 1), reduced, three, 3, stride))
        inner = layer(layer(x, ins, double_reduced, 1), double_reduced, double, 3)
        parts.append(layer(inner, double, double, 3, stride))
        more = {"count_include_pad": 0} if pool == "AveragePool" else {}
        pooled = net.pool(x, pool, 3, stride, 1, **more)
        parts.append(layer(pooled, ins, projected, 1) if projected else pooled)
        x = net.op("Concat", *parts, axis=1)
        ins = one + three + double + (projected or ins)
    return net.done((net.dense(net.flat_mean(x), ins, 1000), [N, 1000]))


def classical(name):
    """A model of scikit-learn, and rows of the data that it was fitted to."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    load, make = {
        "logistic-regression": (load_breast_cancer, LogisticRegression),
        "decision-tree": (load_breast_cancer, lambda: DecisionTreeClassifier(random_state=0)),
        "forest-cancer": (load_breast_cancer, lambda: RandomForestClassifier(100, random_state=0)),
        "boosting-digits": (load_digits, lambda: GradientBoostingClassifier(random_state=0)),
        "forest-digits": (load_digits, lambda: RandomForestClassifier(100, random_state=0)),
    }[name]
    rows, classes = load(return_X_y=True)
    rows = StandardScaler().fit_transform(rows).astype(np.float32)
    fitted = make().fit(rows, classes)
    made = to_onnx(fitted, rows[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3})
    return made, rows


# name: (what makes it, its family, the numbers of rows to run)
ZOO = {
    "autoencoder": (autoencoder, "dense", [1, 16]),
    "gru": (lambda: recurrent("GRU"), "recurrent", [1]),
    "lstm": (lambda: recurrent("LSTM"), "recurrent", [1]),
    "transformer": (transformer, "transformer", [1]),
    "accelerometer": (accelerometer, "convolution", [1]),
    "mobilenet": (mobilenet, "convolution", [1, 16]),
    "keywords": (keywords, "convolution", [1]),
    "squeezenet": (squeezenet, "convolution", [1]),
    "shufflenet": (shufflenet, "convolution", [1]),
    "resnet50": (resnet, "convolution", [1]),
    "inception-v2": (inception, "convolution", [1]),
    "logistic-regression": (None, "linear", [1]),
    "decision-tree": (None, "tree", [1]),
    "forest-cancer": (None, "forest", [1, 64]),
    "boosting-digits": (None, "forest", [1, 64]),
    "forest-digits": (None, "forest", [1, 64]),
}


def family(model):
    """Of a model that somebody made, by what it is made of."""
    kinds = {node.op_type for node in model.graph.node}
    if any(kind.startswith("TreeEnsemble") for kind in kinds):
        return "forest"
    if any(kind.startswith("Linear") for kind in kinds):
        return "linear"
    return "convolution" if kinds & {"Conv", "ConvTranspose"} else "dense"


def write(place, name, family, made, batches, data=None):
    """The model, inputs of so many rows (of `data`, by name, or random ones) and the answers to them."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.onnx").write_bytes(made.SerializeToString())
    session = onnxruntime.InferenceSession(str(place / "model.onnx"), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(11)
    if data is None:
        most = max(batches)
        data = {taken.name: random.standard_normal([most, *taken.shape[1:]], np.float32) for taken in session.get_inputs()}
    for rows in batches:
        x = {name: column[:rows] for name, column in data.items()}
        y = zip((made.name for made in session.get_outputs()), session.run(None, x))
        arrays = {f"in:{name}": column for name, column in x.items()} | {f"out:{name}": column for name, column in y}
        np.savez(place / f"rows{rows}.npz", **arrays)
    size = (place / "model.onnx").stat().st_size
    classical = any(opset.domain == "ai.onnx.ml" for opset in made.opset_import)
    what = {"folder": place.name, "name": name, "family": family, "classical": classical, "batches": batches, "bytes": size}
    print(json.dumps(what), flush=True)


def golden(folder):
    """The golden inputs of an example, by the names that its model gives them."""
    made = onnx.load(folder / "model.onnx")
    archive = folder / "golden.npz"
    if archive.exists():
        arrays = np.load(archive)
        return made, {name.removeprefix("in:"): arrays[name] for name in arrays.files if name.startswith("in:")}
    return made, {made.graph.input[0].name: np.load(folder / "golden_x.npy")}


def main(folder, examples_only):
    for name, (build, family_, batches) in () if examples_only else ZOO.items():
        if build:
            write(folder / name, name, family_, build(), batches)
        else:
            made, rows = classical(name)
            write(folder / name, name, family_, made, batches, {made.graph.input[0].name: rows})
    for example in sorted(path.parent for path in Path(__file__).parent.glob("*/model.onnx")):
        made, data = golden(example)
        write(folder / f"example-{example.name}", f"example {example.name}", family(made), made, [1], data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["examples"])
