"""Python, and strings."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()) for request in requests]

    def _answer(self, text):
        upper = np.array([each.upper() for each in text.ravel()], object).reshape(text.shape)
        return pb_utils.InferenceResponse([pb_utils.Tensor("UPPER", upper)])
