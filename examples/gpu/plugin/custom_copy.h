#pragma once

#include <vector>

#include "dali/pipeline/operator/checkpointing/stateless_operator.h"
#include "dali/pipeline/operator/operator.h"

namespace custom_copy {

/**
 * Copies its only input to its only output: same type, shapes, layout and metadata, its own memory.
 *
 * Any element type, any rank, batches of equal or of different shapes, samples of zero elements.
 * Keeps no state between batches, hence StatelessOperator: the pipeline can be checkpointed.
 */
template <typename Backend>
class CustomCopy : public ::dali::StatelessOperator<Backend> {
 public:
  using ::dali::StatelessOperator<Backend>::StatelessOperator;

  // DALI up to 1.35 asks for this function, later ones no longer declare it: `override` would tie
  // the source to the former, leaving it out to the latter.
  bool CanInferOutputs() const { return true; }

 protected:
  /** The output is what the input is, so DALI can allocate it (in one block) before the run. */
  bool SetupImpl(std::vector<::dali::OutputDesc> &output_desc, const ::dali::Workspace &ws) override {
    const auto &input = ws.Input<Backend>(0);
    output_desc.resize(1);
    output_desc[0].shape = input.shape();
    output_desc[0].type = input.type();
    return true;
  }

  using ::dali::OperatorBase::RunImpl;
  void RunImpl(::dali::Workspace &ws) override;
};

/** Carries over what is neither data nor shape: the layout ("HWC", ...) and where each sample came from. */
template <typename Backend>
void CopyMetadata(::dali::TensorList<Backend> &output, const ::dali::TensorList<Backend> &input) {
  output.SetLayout(input.GetLayout());
  for (int i = 0; i < input.num_samples(); i++) output.SetMeta(i, input.GetMeta(i));
}

}  // namespace custom_copy
