#include "normalize_permute.h"

#include <cuda_runtime.h>

#include <cstdint>

#include "dali/core/cuda_error.h"
#include "normalize_permute_kernel.h"

namespace normalize_permute {

template <>
void NormalizePermute<::dali::GPUBackend>::RunImpl(::dali::Workspace &ws) {
  const auto &input = ws.Input<::dali::GPUBackend>(0);
  auto &output = ws.Output<::dali::GPUBackend>(0);
  CopyMetadata(output, input);

  const auto &shape = input.shape();
  const int channels = ChannelsOf(shape);
  if (channels == 0) return;
  Samples samples;
  samples.channels = arguments_.For(channels);
  int count = 0;
  auto flush = [&] {
    if (count == 0) return;
    LaunchNormalize(samples, count, channels, ws.stream());
    CUDA_CALL(cudaGetLastError());
    count = 0;
  };
  for (int i = 0; i < shape.num_samples(); i++) {
    const int64_t pixels = shape.tensor_size(i) / channels;
    if (pixels == 0) continue;
    if (count == kSamplesPerLaunch) flush();
    samples.sample[count++] = {static_cast<uint16_t *>(output.raw_mutable_tensor(i)),
                               static_cast<const uint8_t *>(input.raw_tensor(i)), pixels};
  }
  flush();
}

}  // namespace normalize_permute

DALI_REGISTER_OPERATOR(NormalizePermute, ::normalize_permute::NormalizePermute<::dali::GPUBackend>, ::dali::GPU);
