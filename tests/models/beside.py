"""ONNX Runtime's side of the engine's bench: `beside.py FOLDER ROWS`, saying and asked the same as
`agent/engine/examples/measure.rs`. `beside.py bare` only says what Python, numpy and ONNX Runtime take
before any model."""

import one_thread  # noqa: F401

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

WARM = 10


def say(**what):
    # In one call of the system, since calls are counted: `print` writes the end of the line by itself.
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def largest_memory():
    """VmHWM in KiB: the largest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


def main(folder, rows):
    # Text as objects: so it comes from a table, and so it is taken fastest.
    plain = lambda column: column.astype(object) if column.dtype.kind == "U" else column
    arrays = np.load(folder / f"rows{rows}.npz")
    inputs = {name.removeprefix("in:"): plain(arrays[name]) for name in arrays.files if name.startswith("in:")}
    begin = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = str(folder / "model.onnx")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, inputs)
    ready = time.perf_counter() - begin
    for _ in range(WARM):
        session.run(None, inputs)
    say(load_us=ready * 1e6, memory_kib=largest_memory(), difference=0.0)
    for line in sys.stdin:
        times = []
        for _ in range(max(1, int(line))):
            begin = time.perf_counter()
            session.run(None, inputs)
            times.append(time.perf_counter() - begin)
        say(p50_us=sorted(times)[len(times) // 2] * 1e6)


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        say(memory_kib=largest_memory())
    else:
        main(Path(sys.argv[1]), sys.argv[2])
