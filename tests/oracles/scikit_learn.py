"""Do scikit-learn's models answer in Petrel as they do in ONNX Runtime?

Fits small models on scikit-learn's bundled data, alone and in pipelines, converts them with
skl2onnx, packs each with ONNX Runtime's answers as its golden archive (the real `petrel pack`
refuses a mismatch), and lets the real `petrel-agent infer` answer rows that were not in it.
One line a model, then a summary (`--json`: one JSON object). Exits 1 if a model that should
agree does not; what cannot be is listed in CANNOT with its cause, and must still not be.

    scikit_learn.py --bin FOLDER [--json] [--only TEXT]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import pandas  # noqa: E402
from skl2onnx import convert_sklearn  # noqa: E402
from skl2onnx.common.data_types import FloatTensorType, StringTensorType  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge, RidgeClassifier  # noqa: E402
from sklearn.naive_bayes import GaussianNB  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler  # noqa: E402
from sklearn.svm import SVC, SVR, LinearSVC  # noqa: E402
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor  # noqa: E402

TOLERANCE = 1e-5
GOLDEN, HELD_OUT = 30, 50
OPSETS = {"": 17, "ai.onnx.ml": 3}
FEW = {"n_estimators": 20, "random_state": 0}

CLASSIFIERS = [
    LogisticRegression(max_iter=300),
    RidgeClassifier(),
    LinearSVC(random_state=0),
    SVC(),
    GaussianNB(),
    KNeighborsClassifier(),
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(**FEW),
    ExtraTreesClassifier(**FEW),
    GradientBoostingClassifier(**FEW),
    HistGradientBoostingClassifier(max_iter=20),
    MLPClassifier(hidden_layer_sizes=(16,), solver="lbfgs", max_iter=100, random_state=0),
]
REGRESSORS = [
    Ridge(),
    ElasticNet(alpha=0.1),
    SVR(),
    KNeighborsRegressor(),
    DecisionTreeRegressor(random_state=0),
    RandomForestRegressor(**FEW),
    ExtraTreesRegressor(**FEW),
    GradientBoostingRegressor(**FEW),
    HistGradientBoostingRegressor(max_iter=20),
    MLPRegressor(hidden_layer_sizes=(16,), solver="lbfgs", max_iter=100, random_state=0),
]
OTHERS = [IsolationForest(**FEW), PCA(3), KMeans(3, n_init=3, random_state=0)]
# These take rows with holes as they are.
TAKE_HOLES = (DecisionTreeClassifier, RandomForestClassifier, HistGradientBoostingClassifier, HistGradientBoostingRegressor)
TEXT_CLASSES = (LogisticRegression, SVC, GaussianNB, KNeighborsClassifier, RandomForestClassifier, GradientBoostingClassifier)

# What cannot be: the start of a model's name, and why. Each must still fail.
CANNOT = {}


class Data:
    """Rows of a data set, the first of which are for fitting; inputs are named arrays."""

    def __init__(self, rows, target, columns=None):
        order = np.random.default_rng(0).permutation(len(target))
        self.rows, self.target, self.columns = rows[order], target[order], columns
        self.cut = len(target) - GOLDEN - HELD_OUT

    def frame(self, rows):
        """As fitted: an array, or a table where columns have names."""
        if self.columns is None:
            return rows.astype(np.float32)
        kinds = {name: "float32" if kind is FloatTensorType else "object" for name, kind in self.columns}
        return pandas.DataFrame(rows, columns=list(kinds)).astype(kinds)

    def types(self):
        if self.columns is None:
            return [("x", FloatTensorType([None, self.rows.shape[1]]))]
        return [(name, kind([None, 1])) for name, kind in self.columns]

    def inputs(self, rows):
        if self.columns is None:
            return {"x": rows.astype(np.float32)}
        numbers = {name for name, kind in self.columns if kind is FloatTensorType}
        return {
            name: rows[:, [at]].astype(np.float32 if name in numbers else str)
            for at, (name, _) in enumerate(self.columns)
        }


def with_holes(rows):
    holes = np.random.default_rng(1).random(rows.shape) < 0.1
    return np.where(holes, np.nan, rows)


def with_words(rows):
    """Four columns stay numbers, two become words."""
    words = np.array(["low", "middle", "high"])
    worded = [words[np.searchsorted(np.quantile(rows[:, at], [0.3, 0.7]), rows[:, at])] for at in (4, 5)]
    columns = [(f"n{at}", FloatTensorType) for at in range(4)] + [(f"w{at}", StringTensorType) for at in range(2)]
    return np.column_stack([rows[:, :4].astype(object)] + worded), columns


def settings(rows, target):
    """How a model stands: what is before it, and the data that it sees."""
    plain = Data(rows, target)
    worded, columns = with_words(rows)
    numbers = [name for name, kind in columns if kind is FloatTensorType]
    words = [name for name, kind in columns if kind is StringTensorType]
    encode = ColumnTransformer([("n", StandardScaler(), numbers), ("w", OneHotEncoder(sparse_output=False), words)])
    return [
        ("alone", [], plain),
        ("standard", [StandardScaler()], plain),
        ("minmax", [MinMaxScaler()], plain),
        ("imputed", [SimpleImputer()], Data(with_holes(rows), target)),
        ("words", [encode], Data(worded, target, columns)),
    ]


def models():
    """Name, pipeline, data and converter's options of every model."""
    cancer, wine, diabetes = (load(return_X_y=True) for load in (load_breast_cancer, load_wine, load_diabetes))
    # Likelihoods of many columns are so small that their sum vanishes unless it is taken with care.
    for wide in (GaussianNB(), CalibratedClassifierCV(GaussianNB(), cv=3)):
        yield f"{type(wide).__name__}/30 columns", [wide], Data(*cancer), {"zipmap": False}
    cancer = (cancer[0][:, :10], cancer[1])
    # Their own columns are of very different sizes; diabetes' are tiny, its target large.
    diabetes = (diabetes[0] * 10, diabetes[1] / 100)
    two, three = settings(*cancer), settings(*wine)[:1]
    for zipmap in (False, True):
        suffix = ",zipmap" if zipmap else ""
        for model in CLASSIFIERS:
            name, options = type(model).__name__, {"zipmap": zipmap}
            if isinstance(model, LinearSVC):  # its scores are no probabilities: skl2onnx never maps them
                if zipmap:
                    continue
                options = {"nocl": False}  # the default; but without any option skl2onnx fails in a pipeline
            for setting, before, data in two:
                yield f"{name}/2 classes,{setting}{suffix}", before + [model], data, options
            for setting, before, data in three:
                yield f"{name}/3 classes,{setting}{suffix}", before + [model], data, options
            if isinstance(model, TEXT_CLASSES):
                for count, (rows, target) in ((2, cancer), (3, wine)):
                    data = Data(rows, np.array(["bad", "good", "ugly"])[target])
                    yield f"{name}/{count} classes of text{suffix}", [model], data, options
            if isinstance(model, TAKE_HOLES):
                yield f"{name}/2 classes,holes{suffix}", [model], Data(with_holes(cancer[0]), cancer[1]), options
    for model in REGRESSORS + OTHERS:
        for setting, before, data in settings(*diabetes):
            yield f"{type(model).__name__}/{setting}", before + [model], data, {}
        if isinstance(model, TAKE_HOLES):
            yield f"{type(model).__name__}/holes", [model], Data(with_holes(diabetes[0]), diabetes[1]), {}


def converted(pipeline, data, options):
    last = pipeline.steps[-1][1]
    options = {id(last): options} if options else {}
    if isinstance(last, IsolationForest):
        options = {id(last): {"score_samples": False}}
    return convert_sklearn(pipeline, initial_types=data.types(), options=options, target_opset=OPSETS)


def as_array(value, classes):
    """An output of ONNX Runtime; ZipMap's list of dicts becomes rows of scores in the order of the classes."""
    if isinstance(value, list):
        value = np.array([[row[label] for label in classes] for row in value], dtype=np.float32)
    return value.astype(str) if value.dtype == object else value


def runtime(path, inputs, classes):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # it warns where skl2onnx declares another shape than the model has
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {name: rows.astype(object) if rows.dtype.kind == "U" else rows for name, rows in inputs.items()}
    return {
        output.name: as_array(value, classes)
        for output, value in zip(session.get_outputs(), session.run(None, feed), strict=True)
    }


def differs(got, expected):
    """How two outputs differ; None when they do not."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.size != expected.size:
        return f"{got.size} values, not {expected.size}"
    got = got.reshape(expected.shape)
    if expected.dtype.kind != "f":
        count = int(np.sum(got.astype(expected.dtype) != expected))
        return f"{count} of {expected.size} classes differ" if count else None
    apart = np.abs(got - expected) > TOLERANCE + TOLERANCE * np.abs(expected)
    worst = np.max(np.abs(got - expected))
    return f"{int(apart.sum())} of {apart.size} floats differ, by up to {worst:.1e}" if apart.any() else None


def itself(pipeline, rows):
    """What scikit-learn says: one list of possible answers for each output."""
    scores = [getattr(pipeline, name)(rows) for name in ("predict_proba", "decision_function") if hasattr(pipeline, name)]
    scores += [np.column_stack([-score, score]) for score in scores if score.ndim == 1 and hasattr(pipeline, "classes_")]
    if hasattr(pipeline, "transform") and not isinstance(pipeline[-1], KMeans):
        return [[pipeline.transform(rows)]]
    if isinstance(pipeline[-1], KMeans):
        return [[pipeline.predict(rows)], [pipeline.transform(rows)]]
    return [[pipeline.predict(rows)], scores]


class Failed(Exception):
    pass


def call(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise Failed(f"{Path(command[0]).name} {command[1]}: {said[:300]}")
    return done.stdout


def pack(binaries, folder, inputs, outputs):
    arrays = {f"in:{name}": rows for name, rows in inputs.items()}
    arrays |= {f"out:{name}": rows for name, rows in outputs.items()}
    np.savez(folder / "golden.npz", **arrays)
    tolerance = ("--tolerance-abs", TOLERANCE, "--tolerance-rel", TOLERANCE)
    named = ("--stream", "oracle", "--version", "1.0.0", "--golden", folder / "golden.npz")
    call(binaries / "petrel", "pack", folder / "model.onnx", *named, *tolerance, "-o", folder / "bundle")


def infer(binaries, folder, inputs):
    """What the agent answers: to an array, or to a table where the model has an input for each column."""
    if list(inputs) == ["x"]:
        file = folder / "x.npy"
        np.save(file, inputs["x"])
    else:
        file = folder / "x.csv"
        pandas.DataFrame({name: np.ravel(values) for name, values in inputs.items()}).to_csv(file, index=False)
    said = json.loads(call(binaries / "petrel-agent", "infer", folder / "bundle", "--input", file, "--json"))
    rows = [row["outputs"] for row in said["rows"]]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def try_one(binaries, steps, data, options):
    """Packs and asks; says whether scikit-learn agrees too."""
    pipeline = make_pipeline(*steps)
    pipeline.fit(data.frame(data.rows[: data.cut]), data.target[: data.cut])
    classes = list(getattr(pipeline, "classes_", []))
    golden = data.inputs(data.rows[data.cut : data.cut + GOLDEN])
    held_out = data.rows[data.cut + GOLDEN :]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "model.onnx").write_bytes(converted(pipeline, data, options).SerializeToString())
        pack(binaries, folder, golden, runtime(folder / "model.onnx", golden, classes))
        expected = runtime(folder / "model.onnx", data.inputs(held_out), classes)
        got = infer(binaries, folder, data.inputs(held_out))
    for name, value in expected.items():
        if why := differs(got[name], value):
            raise Failed(f"petrel-agent infer: {name}: {why}")
    said = itself(pipeline, data.frame(held_out))
    answers = list(got.values())
    agrees = all(any(differs(answer, maybe) is None for maybe in may_be) for answer, may_be in zip(answers, said, strict=False))
    return agrees


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True, help="the folder of petrel and petrel-agent")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--only", default="", help="models whose name has this in it")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    started, summary, failed = time.monotonic(), {"models": 0, "agree": 0, "equal_to_sklearn": 0}, []
    refused = {}
    for name, steps, data, options in models():
        if args.only not in name:
            continue
        summary["models"] += 1
        cause = next((why for start, why in CANNOT.items() if name.startswith(start)), None)
        try:
            agrees = try_one(args.bin, steps, data, options)
        except Exception as error:  # noqa: BLE001  (whatever goes wrong with one model, the others are tried)
            refused[name] = cause or f"{type(error).__name__}: {error}"
            print(f"{'no  ' if cause else 'FAIL'} {name}: {cause or refused[name]}", flush=True)
            if cause is None:
                failed.append(name)
            continue
        summary["agree"] += 1
        summary["equal_to_sklearn"] += agrees
        notes = ["equal to ONNX Runtime"] + ["and scikit-learn"] * agrees
        if cause is not None:
            failed.append(name)
            notes.append("but it is listed as what cannot be: take it off the list")
        print(f"{'FAIL' if cause else 'ok  '} {name}: {', '.join(notes)}", flush=True)
    summary |= {"refused": refused, "seconds": round(time.monotonic() - started)}
    print(json.dumps(summary) if args.json else f"{summary['agree']} of {summary['models']} models agree")
    if failed or summary["models"] == 0:
        sys.exit(f"{len(failed)} models do not do what they should: {', '.join(failed[:5])}")


if __name__ == "__main__":
    main()
