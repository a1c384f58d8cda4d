#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu_operator.h"

namespace many {

/** The bytes of each sample in reverse order, of UINT8. */
class ByteReverse : public CpuOperator {
 public:
  using CpuOperator::CpuOperator;

 protected:
  bool SetupImpl(std::vector<::dali::OutputDesc> &output_desc, const ::dali::Workspace &ws) override {
    const auto &input = ws.Input<::dali::CPUBackend>(0);
    DALI_ENFORCE(input.type() == DALI_UINT8, "ByteReverse takes UINT8.");
    output_desc.resize(1);
    output_desc[0].shape = input.shape();
    output_desc[0].type = input.type();
    return true;
  }

  void RunImpl(::dali::Workspace &ws) override {
    const auto &input = ws.Input<::dali::CPUBackend>(0);
    auto &output = ws.Output<::dali::CPUBackend>(0);
    output.SetLayout(input.GetLayout());
    ForEachSample(ws, [&](int i) {
      const uint8_t *bytes = input.tensor<uint8_t>(i);
      std::reverse_copy(bytes, bytes + input.shape().tensor_size(i), output.mutable_tensor<uint8_t>(i));
    });
  }
};

}  // namespace many

DALI_REGISTER_OPERATOR(ByteReverse, ::many::ByteReverse, ::dali::CPU);

DALI_SCHEMA(ByteReverse).DocStr("Reverses the bytes of each sample.").NumInput(1).NumOutput(1);
