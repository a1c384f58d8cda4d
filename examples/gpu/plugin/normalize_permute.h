#pragma once

#include <cstdint>
#include <vector>

#include "dali/pipeline/operator/checkpointing/stateless_operator.h"
#include "dali/pipeline/operator/operator.h"
#include "normalize_permute_kernel.h"

namespace normalize_permute {

/** The operator's arguments, seen to be right. */
class Arguments {
 public:
  explicit Arguments(const ::dali::OpSpec &spec);

  /** Those of every channel: one value stands for all. Throws where there are neither one nor as many as channels. */
  Channels For(int channels) const;

 private:
  std::vector<float> mean_, std_;
  float scale_;
};

/** The shapes in CHW. Throws where the input is no batch of images that the operator takes. */
::dali::TensorListShape<> Permuted(const ::dali::TensorListShape<> &shape, ::dali::DALIDataType type,
                                   const ::dali::TensorLayout &layout);

/** Of the input's first sample, and `Permuted` has seen to it that all have as many. 0 for an empty batch. */
inline int ChannelsOf(const ::dali::TensorListShape<> &shape) {
  return shape.num_samples() ? static_cast<int>(shape.tensor_shape_span(0)[2]) : 0;
}

/**
 * Images in, as decoders give them (HWC, uint8), and what networks take out (CHW, float16), normalised per channel.
 *
 * Batches of equal or of different heights and widths, samples without a pixel; 1 to 4 channels, as many in each sample.
 * CPU and GPU give the same bits: both compute in float, in this order, and round to the nearest float16 once.
 */
template <typename Backend>
class NormalizePermute : public ::dali::StatelessOperator<Backend> {
 public:
  explicit NormalizePermute(const ::dali::OpSpec &spec)
      : ::dali::StatelessOperator<Backend>(spec), arguments_(spec) {}

  // For DALI up to 1.35, as in CustomCopy.
  bool CanInferOutputs() const { return true; }

 protected:
  bool SetupImpl(std::vector<::dali::OutputDesc> &output_desc, const ::dali::Workspace &ws) override {
    const auto &input = ws.Input<Backend>(0);
    output_desc.resize(1);
    output_desc[0].shape = Permuted(input.shape(), input.type(), input.GetLayout());
    output_desc[0].type = DALI_FLOAT16;
    if (input.num_samples()) arguments_.For(ChannelsOf(input.shape()));  // so that it fails before anything is allocated
    return true;
  }

  using ::dali::OperatorBase::RunImpl;
  void RunImpl(::dali::Workspace &ws) override;

 private:
  Arguments arguments_;
};

/** Carries over where each sample came from. */
template <typename Backend>
void CopyMetadata(::dali::TensorList<Backend> &output, const ::dali::TensorList<Backend> &input) {
  output.SetLayout("CHW");
  for (int i = 0; i < input.num_samples(); i++) output.SetSourceInfo(i, input.GetMeta(i).GetSourceInfo());
}

}  // namespace normalize_permute
