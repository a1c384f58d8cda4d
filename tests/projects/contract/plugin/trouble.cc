#include <errno.h>
#include <stdlib.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "dali/pipeline/operator/checkpointing/stateless_operator.h"
#include "dali/pipeline/operator/operator.h"

namespace trouble {

/** Copies UINT8, unless the first byte of a sample asks for something else: see the schema. */
class Trouble : public ::dali::StatelessOperator<::dali::CPUBackend> {
 public:
  using ::dali::StatelessOperator<::dali::CPUBackend>::StatelessOperator;

  // DALI up to 1.35 asks for this function, later ones no longer declare it.
  bool CanInferOutputs() const { return true; }

 protected:
  bool SetupImpl(std::vector<::dali::OutputDesc> &output_desc, const ::dali::Workspace &ws) override {
    const auto &input = ws.Input<::dali::CPUBackend>(0);
    output_desc.resize(1);
    output_desc[0].shape = input.shape();
    output_desc[0].type = input.type();
    return true;
  }

  using ::dali::OperatorBase::RunImpl;
  void RunImpl(::dali::Workspace &ws) override {
    const auto &input = ws.Input<::dali::CPUBackend>(0);
    auto &output = ws.Output<::dali::CPUBackend>(0);
    for (int i = 0; i < input.num_samples(); i++) {
      const uint8_t *bytes = input.tensor<uint8_t>(i);
      const int64_t size = input.shape().tensor_size(i);
      if (size == 0) continue;
      if (bytes[0] == 1) throw std::runtime_error("Trouble was asked for.");
      if (bytes[0] == 2) abort();
      if (bytes[0] == 3) std::this_thread::sleep_for(std::chrono::seconds(1));
      if (bytes[0] == 4) {
        double load[1];
        getloadavg(load, 1);
      }
      if (bytes[0] == 5) program_invocation_name = nullptr;
      std::memcpy(output.mutable_tensor<uint8_t>(i), bytes, size);
    }
  }
};

}  // namespace trouble

DALI_REGISTER_OPERATOR(Trouble, ::trouble::Trouble, ::dali::CPU);

DALI_SCHEMA(Trouble)
    .DocStr(R"(Copies each sample, or does what its first byte says: 1 throws, 2 ends the process, 3 takes a second.

4 calls a function and 5 uses a variable of the C library, which the tests rename in a copy of this library.)")
    .NumInput(1)
    .NumOutput(1);
