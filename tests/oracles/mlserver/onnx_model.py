"""An ONNX model for MLServer, which has no runtime of its own for it: what its documentation tells people to write.

    MLSERVER_HTTP_PORT=8080 MLSERVER_MODEL_URI=MODEL.onnx mlserver start tests/oracles/mlserver
"""

import numpy
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = await get_model_uri(self._settings)
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = NumpyCodec.decode_input(payload.inputs[0]).astype(numpy.float32, copy=False)
        logits = self._session.run(None, {self._session.get_inputs()[0].name: values})[0]
        powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
        outputs = [
            NumpyCodec.encode_output("logits", scores),
            NumpyCodec.encode_output("class", scores.argmax(axis=1)),
        ]
        return InferenceResponse(model_name=self.name, model_version="1", outputs=outputs)
