"""Python, and the second step of `chain`; has no oracle, so types and shapes alone are verified."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(pb_utils.get_input_tensor_by_name(request, "BYTES").as_numpy()) for request in requests]

    def _answer(self, data):
        return pb_utils.InferenceResponse([pb_utils.Tensor("INVERTED", 255 - data)])
