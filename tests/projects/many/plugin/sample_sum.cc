#include <cstdint>
#include <numeric>
#include <vector>

#include "cpu_operator.h"

namespace many {

/** The sum of each sample: UINT8 in, one INT64 out. */
class SampleSum : public CpuOperator {
 public:
  using CpuOperator::CpuOperator;

 protected:
  bool SetupImpl(std::vector<::dali::OutputDesc> &output_desc, const ::dali::Workspace &ws) override {
    const auto &input = ws.Input<::dali::CPUBackend>(0);
    DALI_ENFORCE(input.type() == DALI_UINT8, "SampleSum takes UINT8.");
    output_desc.resize(1);
    output_desc[0].shape = ::dali::uniform_list_shape(input.num_samples(), {1});
    output_desc[0].type = DALI_INT64;
    return true;
  }

  void RunImpl(::dali::Workspace &ws) override {
    const auto &input = ws.Input<::dali::CPUBackend>(0);
    auto &output = ws.Output<::dali::CPUBackend>(0);
    ForEachSample(ws, [&](int i) {
      const uint8_t *bytes = input.tensor<uint8_t>(i);
      *output.mutable_tensor<int64_t>(i) = std::accumulate(bytes, bytes + input.shape().tensor_size(i), int64_t{0});
    });
  }
};

}  // namespace many

DALI_REGISTER_OPERATOR(SampleSum, ::many::SampleSum, ::dali::CPU);

DALI_SCHEMA(SampleSum).DocStr("Adds up the bytes of each sample.").NumInput(1).NumOutput(1);
