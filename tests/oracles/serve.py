"""A usual Python server for one ONNX model: what people run where there is no Petrel.

    serve.py MODEL.onnx PORT

One process, one thread for ONNX Runtime, FastAPI over uvicorn, the JSON of the Open Inference Protocol.
"""

import sys

import numpy
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/v2/models/digits/infer")
async def infer(request: Request) -> JSONResponse:
    body = await request.json()
    given = body["inputs"][0]
    values = numpy.asarray(given["data"], numpy.float32).reshape(given["shape"])
    logits = session.run(None, {session.get_inputs()[0].name: values})[0]
    powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    scores = powers / powers.sum(axis=1, keepdims=True)
    classes = scores.argmax(axis=1)
    return JSONResponse(
        {
            "model_name": "digits",
            "model_version": "1",
            "outputs": [
                {"name": "logits", "datatype": "FP32", "shape": list(scores.shape), "data": scores.ravel().tolist()},
                {"name": "class", "datatype": "INT64", "shape": list(classes.shape), "data": classes.tolist()},
            ],
        }
    )


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
