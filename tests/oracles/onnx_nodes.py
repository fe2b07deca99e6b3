"""Writes the conformance cases of the installed onnx package to a folder, one folder a case.

A case is `model.onnx`, `folded.onnx` where it differs (inputs that models of the real world carry as weights, such as a
shape, given as such), each input and output as a `.pb` file, and `case.json` that says which is which. A value that is no
plain tensor (a sequence, an optional) has no file.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

# What an operator is told at export rather than at run time, by the names of its formal inputs.
PARAMETERS = frozenset(
    """
    B P R Scale W a_scale a_zero_point axes axis b_scale b_zero_point bias block_shape constant_value delta depth
    dft_length ends frame_length frame_step image_shape input_mean input_var iou_threshold k limit lower_edge_hertz max
    max_output_boxes_per_class min num_mel_bins output_shape pads ratio repeats roi sample_rate scale scales
    score_threshold shape size sizes slope split start starts steps training_mode upper_edge_hertz values w w_scale
    w_zero_point weight window x_scale x_zero_point y_scale y_zero_point
    """.split()
)
# Formal inputs whose name alone does not tell.
ONLY_HERE = {("TopK", "K"), ("ConstantOfShape", "input")}
KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple")


def parameters(model: onnx.ModelProto) -> set[str]:
    """The graph's inputs that a model of the real world would carry as weights."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    found, data = set(), set()
    for node in model.graph.node:
        if not onnx.defs.has(node.op_type, node.domain) or node.domain not in versions:
            return set()
        formal = onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain).inputs
        names = [entry.name for entry in formal]
        for index, name in enumerate(node.input):
            known = names[min(index, len(names) - 1)] if names else ""
            told = known in PARAMETERS and not (known == "B" and names[0] == "A")
            (found if told or (node.op_type, known) in ONLY_HERE else data).add(name)
    return found - data


def folded(model: onnx.ModelProto, values: dict[str, onnx.TensorProto]) -> onnx.ModelProto | None:
    """The model with its parameters as weights; none when it has none."""
    told = [entry for entry in model.graph.input if entry.name in parameters(model) and entry.name in values]
    if not told:
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for entry in told:
        copy.graph.input.remove(entry)
        weight = copy.graph.initializer.add()
        weight.CopyFrom(values[entry.name])
        weight.name = entry.name
    return copy


def proto(value, port: onnx.ValueInfoProto) -> onnx.TensorProto | None:
    if not port.type.HasField("tensor_type") or value is None:
        return None
    if isinstance(value, onnx.TensorProto):
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = port.name
        return tensor
    return numpy_helper.from_array(np.asarray(value), port.name)


def write(folder: Path, case, model: onnx.ModelProto, inputs, outputs) -> None:
    folder.mkdir(parents=True)
    ports = {"inputs": [], "outputs": []}
    values = {}
    # An initialiser may be listed among the inputs; values are only given for the others.
    weights = {tensor.name for tensor in model.graph.initializer}
    graph_inputs = [port for port in model.graph.input if port.name not in weights or len(inputs) == len(model.graph.input)]
    for side, given, declared in (("inputs", inputs, graph_inputs), ("outputs", outputs, model.graph.output)):
        for index, (value, port) in enumerate(zip(given, declared)):
            tensor, file = proto(value, port), None
            if tensor is not None:
                file = f"{side}_{index}.pb"
                (folder / file).write_bytes(tensor.SerializeToString())
                values[port.name] = tensor
            ports[side].append({"name": port.name, "file": file})
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    other = folded(model, {entry["name"]: values[entry["name"]] for entry in ports["inputs"] if entry["file"]})
    if other is not None:
        (folder / "folded.onnx").write_bytes(other.SerializeToString())
    domains = {"ai.onnx": ""}
    names = {(domains.get(node.domain, node.domain), node.op_type) for node in model.graph.node}
    operators = sorted(f"{domain}.{name}".lstrip(".") for domain, name in names)
    about = {"kind": case.kind, "operators": operators, "rtol": case.rtol, "atol": case.atol, **ports}
    (folder / "case.json").write_text(json.dumps(about))


def stored(case):
    """The model and the data sets of a case that the package holds as files."""
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    sets = []
    for data in sorted(folder.glob("test_data_set_*")):
        pair = []
        for side in ("input", "output"):
            tensors = []
            for index in range(len(list(data.glob(f"{side}_*.pb")))):
                tensor = onnx.TensorProto()
                ports = model.graph.input if side == "input" else model.graph.output
                if index < len(ports) and ports[index].type.HasField("tensor_type"):
                    tensor.ParseFromString((data / f"{side}_{index}.pb").read_bytes())
                    tensors.append(tensor)
                else:
                    tensors.append(None)
            pair.append(tensors)
        sets.append(tuple(pair))
    return model, sets


def main(target: Path) -> None:
    warnings.simplefilter("ignore")
    shutil.rmtree(target, ignore_errors=True)
    # The cases draw their inputs when they are imported.
    np.random.seed(0)
    from onnx.backend.test.loader import load_model_tests

    count = 0
    for kind in KINDS:
        for case in sorted(load_model_tests(kind=kind), key=lambda case: case.name):
            model, sets = (case.model, case.data_sets) if case.model is not None else stored(case)
            for index, (inputs, outputs) in enumerate(sets):
                name = f"{kind}.{case.name}" + (f".{index}" if index else "")
                write(target / name, case, model, inputs, outputs)
                count += 1
    print(f"{count} cases of onnx {onnx.__version__}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
