"""Asks the served example: `infer.py [HOST:PORT]`. Nothing but tritonclient and NumPy."""

import sys

import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient(sys.argv[1] if len(sys.argv) > 1 else "localhost:8000")
batch = np.random.default_rng().integers(0, 256, size=(4, 1000), dtype=np.uint8)
tensor = triton.InferInput("DALI_INPUT_0", list(batch.shape), "UINT8")
tensor.set_data_from_numpy(batch)
answer = client.infer("mydali", [tensor]).as_numpy("DALI_OUTPUT_0")
assert np.array_equal(answer, batch), "the model must give back what it gets"
print(f"mydali gave back {answer.nbytes} bytes, all of them right")
