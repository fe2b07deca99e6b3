"""A client that other people wrote, `tritonclient[http]`, against an agent that runs.

    triton.py ADDRESS MODELS

ADDRESS is the local API of an agent that serves `digits`; MODELS the folder of example models. It asks for everything that
the client knows of the protocol, by JSON and by bytes, and compares the answers with what Python gave for the same rows.
"""

import sys
import urllib.request
from pathlib import Path

import numpy
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

address, models = sys.argv[1], Path(sys.argv[2])
rows = numpy.load(models / "digits/heldout_x.npy")
expected = numpy.load(models / "digits/heldout_class.npy")
labels = (models / "digits/labels.txt").read_text().split("\n")
client = triton.InferenceServerClient(address)

assert client.is_server_live() and client.is_server_ready()
server = client.get_server_metadata()
assert server["name"] == "petrel-agent" and "binary_tensor_data" in server["extensions"], server
model = client.get_model_metadata("digits")
(version,) = model["versions"]
assert client.is_model_ready("digits") and client.is_model_ready("digits", version)
assert not client.is_model_ready("digits", "77") and not client.is_model_ready("nothing")
assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}], model
assert "logits" in [output["name"] for output in model["outputs"]], model
assert client.get_model_metadata("digits", version)["versions"] == [version]

answers = 0
for binary_in in (False, True):
    for binary_out in (False, True, None):
        for batch in (1, 16, 250):
            for version_of in ("", version):
                some = rows[:batch].astype(numpy.float32)
                given = triton.InferInput("image", list(some.shape), "FP32")
                given.set_data_from_numpy(some, binary_data=binary_in)
                asked = None
                if binary_out is not None:
                    names = ("class", "label", "logits")
                    asked = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
                result = client.infer("digits", [given], version_of, asked, request_id=f"r{batch}")
                response = result.get_response()
                assert response["model_name"] == "digits" and response["model_version"] == version, response
                assert response["id"] == f"r{batch}", response
                classes = result.as_numpy("class")
                assert classes.dtype == numpy.int64 and (classes == expected[:batch]).all(), (binary_in, binary_out, batch)
                words = [word.decode() if isinstance(word, bytes) else word for word in result.as_numpy("label")]
                assert words == [labels[n] for n in expected[:batch]], words[:5]
                logits = result.as_numpy("logits")
                assert logits.shape == (batch, 10) and (logits.argmax(axis=1) == expected[:batch]).all()
                answers += batch

# Many at once, each with its own answer.
pool = triton.InferenceServerClient(address, concurrency=8)
waiting = []
for at in range(200):
    given = triton.InferInput("image", [1, 1, 8, 8], "FP32")
    given.set_data_from_numpy(rows[at : at + 1].astype(numpy.float32))
    waiting.append(pool.async_infer("digits", [given]))
for at, request in enumerate(waiting):
    assert request.get_result().as_numpy("class")[0] == expected[at], at
    answers += 1

for shape, word in (([1, 1, 8, 7], "shape"), ([2], "shape")):
    given = triton.InferInput("image", shape, "FP32")
    given.set_data_from_numpy(numpy.zeros(shape, numpy.float32))
    try:
        client.infer("digits", [given])
        raise SystemExit(f"a request of shape {shape} was answered")
    except InferenceServerException as refused:
        assert word in str(refused), refused
# What Prometheus would read there.
families = {}
with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4"), page.headers["content-type"]
    for family in text_string_to_metric_families(page.read().decode()):
        assert family.name not in families and family.documentation and family.type in ("counter", "gauge"), family
        families[family.name] = family
answered = [s.value for s in families["petrel_answers"].samples if s.labels == {"stream": "digits"}]
assert len(answered) == 1 and answered[0] > 0, answered
assert families["petrel_decides"].samples[0].value == 1

print(f"tritonclient: {answers} rows by JSON and by bytes, every class and label as Python gave them")
