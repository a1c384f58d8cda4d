#pragma once

#include <utility>
#include <vector>

#include "dali/pipeline/operator/checkpointing/stateless_operator.h"
#include "dali/pipeline/operator/operator.h"

namespace many {

/** An operator of one input and one output on the CPU, which handles each sample by itself. */
class CpuOperator : public ::dali::StatelessOperator<::dali::CPUBackend> {
 public:
  using ::dali::StatelessOperator<::dali::CPUBackend>::StatelessOperator;

  // DALI up to 1.35 asks for this function, later ones no longer declare it.
  bool CanInferOutputs() const { return true; }

 protected:
  using ::dali::OperatorBase::RunImpl;

  /** Calls handle(sample's index) for every sample, by all threads of the pipeline. */
  template <typename Handle>
  static void ForEachSample(::dali::Workspace &ws, Handle handle) {
    const auto &shape = ws.Input<::dali::CPUBackend>(0).shape();
    auto &thread_pool = ws.GetThreadPool();
    for (int i = 0; i < shape.num_samples(); i++) {
      thread_pool.AddWork([handle, i](int) { handle(i); }, shape.tensor_size(i));
    }
    thread_pool.RunAll();
  }
};

}  // namespace many
