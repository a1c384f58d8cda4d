#include <algorithm>
#include <vector>

#include "cpu_operator.h"

namespace many {

/** output = input * scale + offset, of FLOAT. */
class ScaleAdd : public CpuOperator {
 public:
  explicit ScaleAdd(const ::dali::OpSpec &spec)
      : CpuOperator(spec), scale_(spec.GetArgument<float>("scale")), offset_(spec.GetArgument<float>("offset")) {}

 protected:
  bool SetupImpl(std::vector<::dali::OutputDesc> &output_desc, const ::dali::Workspace &ws) override {
    const auto &input = ws.Input<::dali::CPUBackend>(0);
    DALI_ENFORCE(input.type() == DALI_FLOAT, "ScaleAdd takes FLOAT.");
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
      const float *values = input.tensor<float>(i);
      std::transform(values, values + input.shape().tensor_size(i), output.mutable_tensor<float>(i),
                     [this](float value) { return value * scale_ + offset_; });
    });
  }

 private:
  float scale_;
  float offset_;
};

}  // namespace many

DALI_REGISTER_OPERATOR(ScaleAdd, ::many::ScaleAdd, ::dali::CPU);

DALI_SCHEMA(ScaleAdd)
    .DocStr("Multiplies by `scale`, then adds `offset`.")
    .NumInput(1)
    .NumOutput(1)
    .AddOptionalArg("scale", "Factor.", 1.0f)
    .AddOptionalArg("offset", "Summand.", 0.0f);
