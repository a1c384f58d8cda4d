// The operators' kernels without DALI: held against the CPU, and timed by events beside cudaMemcpy. Prints JSON.
//
//   nvcc -O3 -std=c++20 -arch=sm_90 -I../../examples/gpu/plugin -o kernels kernels.cu && ./kernels
//
// They are the plugins' own sources; the operators' own joining of samples comes with them.

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "custom_copy.cu"
#include "normalize_permute.cu"

#define CHECK(call)                                                                                  \
  do {                                                                                               \
    cudaError_t error = (call);                                                                      \
    if (error != cudaSuccess) {                                                                      \
      std::fprintf(stderr, "kernels.cu:%d: %s: %s\n", __LINE__, #call, cudaGetErrorString(error));   \
      std::exit(1);                                                                                  \
    }                                                                                                \
  } while (0)

namespace {

constexpr int kRounds = 31;
cudaStream_t stream;

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

/** Microseconds of each of the `works` on the device, by events: medians of rounds in which each has its turn. */
std::vector<double> DeviceTimes(const std::vector<std::function<void()>> &works) {
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  std::vector<std::vector<double>> times(works.size());
  for (int round = -3; round < kRounds; round++) {
    for (size_t i = 0; i < works.size(); i++) {
      CHECK(cudaEventRecord(begin, stream));
      works[i]();
      CHECK(cudaEventRecord(end, stream));
      CHECK(cudaGetLastError());
      CHECK(cudaEventSynchronize(end));
      float milliseconds;
      CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
      if (round >= 0) times[i].push_back(milliseconds * 1e3);
    }
  }
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
  std::vector<double> medians;
  for (auto &each : times) medians.push_back(Median(each));
  return medians;
}

/** The same by the host's clock, from the first call to the end of the last. */
std::vector<double> HostTimes(const std::vector<std::function<void()>> &works) {
  std::vector<std::vector<double>> times(works.size());
  for (int round = -3; round < kRounds; round++) {
    for (size_t i = 0; i < works.size(); i++) {
      CHECK(cudaStreamSynchronize(stream));
      const auto begin = std::chrono::steady_clock::now();
      works[i]();
      CHECK(cudaStreamSynchronize(stream));
      const std::chrono::duration<double, std::micro> taken = std::chrono::steady_clock::now() - begin;
      if (round >= 0) times[i].push_back(taken.count());
    }
  }
  std::vector<double> medians;
  for (auto &each : times) medians.push_back(Median(each));
  return medians;
}

/** Device memory with random bytes in it. */
uint8_t *Random(size_t bytes, unsigned seed) {
  std::mt19937_64 random(seed);
  std::vector<uint64_t> values((bytes + 7) / 8);
  for (auto &value : values) value = random();
  uint8_t *memory;
  CHECK(cudaMalloc(&memory, values.size() * 8));
  CHECK(cudaMemcpy(memory, values.data(), values.size() * 8, cudaMemcpyHostToDevice));
  return memory;
}

/** What the plugin does with a batch, by its own joining. Returns the launches that it took. */
int Copy(const std::vector<custom_copy::Piece> &samples) {
  custom_copy::Batch batch(stream);
  for (const auto &sample : samples) batch.Add(sample.dst, sample.src, sample.size);
  return batch.Finish();
}

int Normalize(const std::vector<normalize_permute::Sample> &batch, const normalize_permute::Channels &parameters,
              int channels) {
  normalize_permute::Samples samples;
  samples.channels = parameters;
  int launches = 0;
  for (size_t at = 0; at < batch.size(); at += normalize_permute::kSamplesPerLaunch, launches++) {
    const int count = static_cast<int>(std::min<size_t>(normalize_permute::kSamplesPerLaunch, batch.size() - at));
    std::copy_n(batch.begin() + at, count, samples.sample);
    normalize_permute::LaunchNormalize(samples, count, channels, stream);
  }
  return launches;
}

void CopyLarge() {
  constexpr size_t kSample = 64 << 20, kSamples = 8, kTotal = kSample * kSamples, kApart = kSample + 256;
  uint8_t *src = Random(kSamples * kApart, 1), *dst = Random(kSamples * kApart, 2);
  std::vector<custom_copy::Piece> apart, joined;
  for (size_t i = 0; i < kSamples; i++) {
    apart.push_back({dst + i * kApart, src + i * kApart, kSample});
    joined.push_back({dst + i * kSample, src + i * kSample, kSample});
  }
  // One byte off: what a batch of odd sizes looks like.
  std::vector<custom_copy::Piece> odd = apart;
  for (auto &piece : odd) piece.dst = static_cast<uint8_t *>(piece.dst) + 1, piece.size -= 1;
  const auto us = DeviceTimes({
      [&] { CHECK(cudaMemcpyAsync(dst, src, kTotal, cudaMemcpyDeviceToDevice, stream)); },
      [&] { Copy(apart); },
      [&] { Copy(joined); },
      [&] { Copy(odd); },
  });
  std::printf("\"copy_512MiB\": {\"cudaMemcpy_us\": %.1f, \"eight_samples_us\": %.1f, \"one_block_us\": %.1f, "
              "\"misaligned_us\": %.1f, \"of_cudaMemcpy\": %.4f, \"copy_GB_s\": %.1f},\n",
              us[0], us[1], us[2], us[3], us[0] / us[1], 2.0 * kTotal / us[1] / 1e3);
  CHECK(cudaFree(src));
  CHECK(cudaFree(dst));
}

void CopySmall() {
  constexpr size_t kSample = 1 << 10, kSamples = 4096, kApart = kSample + 256;
  uint8_t *src = Random(kSamples * kApart, 3), *dst = Random(kSamples * kApart, 4);
  std::vector<custom_copy::Piece> scattered, joined;
  for (size_t i = 0; i < kSamples; i++) {
    scattered.push_back({dst + i * kApart, src + i * kApart, kSample});
    // As DALI gives batches: samples one after another. The time to join them is in the figures.
    joined.push_back({dst + i * kSample, src + i * kSample, kSample});
  }
  const std::vector<std::function<void()>> works{
      [&] {
        for (size_t i = 0; i < kSamples; i++) {
          CHECK(cudaMemcpyAsync(dst + i * kApart, src + i * kApart, kSample, cudaMemcpyDeviceToDevice, stream));
        }
      },
      [&] { Copy(joined); },
      [&] { Copy(scattered); },
  };
  const auto device = DeviceTimes(works), host = HostTimes(works);
  std::printf("\"copy_4096_of_1KiB\": {\"copy_per_sample_us\": %.1f, \"batch_in_one_block_us\": %.1f, "
              "\"scattered_us\": %.1f, \"launches\": [%d, %d], \"host_us\": [%.1f, %.1f, %.1f], "
              "\"faster_than_copy_per_sample\": [%.1f, %.1f]},\n",
              device[0], device[1], device[2], Copy(joined), Copy(scattered), host[0], host[1], host[2],
              host[0] / host[1], host[0] / host[2]);
  CHECK(cudaFree(src));
  CHECK(cudaFree(dst));
}

/** Bytes read and written a second, against those of the copy of as many bytes, in one run. */
void NormalizeLarge(const char *name, int channels, int height, int width, int count, const char *end) {
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const int64_t bytes = pixels * count * channels;
  uint8_t *src = Random(bytes, 5), *dst = Random(2 * bytes, 6);
  // A copy that moves as much: 3 bytes for each value, half of them read and half of them written.
  const int64_t moved = 3 * bytes, half = moved / 2 / 16 * 16;
  uint8_t *copy_src = Random(half, 7), *copy_dst = Random(half, 8);
  normalize_permute::Channels parameters{{123.675f, 116.28f, 103.53f, 100.f}, {0.0171f, 0.0175f, 0.0174f, 0.01f}};
  std::vector<normalize_permute::Sample> batch;
  for (int i = 0; i < count; i++) {
    batch.push_back({reinterpret_cast<uint16_t *>(dst) + i * pixels * channels, src + i * pixels * channels, pixels});
  }
  const auto us = DeviceTimes({
      [&] { Copy({{copy_dst, copy_src, half}}); },
      [&] { Normalize(batch, parameters, channels); },
  });
  std::printf("\"%s\": {\"channels\": %d, \"images\": \"%d of %dx%d\", \"launches\": %d, \"us\": %.1f, \"GB_s\": %.1f, "
              "\"copy_GB_s\": %.1f, \"of_copy\": %.4f}%s\n",
              name, channels, count, height, width, Normalize(batch, parameters, channels), us[1], moved / us[1] / 1e3,
              2.0 * half / us[0] / 1e3, us[0] / us[1] * moved / (2.0 * half), end);
  CHECK(cudaFree(src));
  CHECK(cudaFree(dst));
  CHECK(cudaFree(copy_src));
  CHECK(cudaFree(copy_dst));
}

/** Every alignment of source and destination, and sizes around a word and a block. Returns the samples. */
int CopyCheck() {
  constexpr int kSamples = 300;  // three launches
  constexpr size_t kEdge = custom_copy::kBytesPerBlock;
  std::mt19937 random(10);
  std::vector<size_t> sizes;
  for (size_t size = 1; size <= 100; size++) sizes.push_back(size);
  for (size_t size = kEdge - 40; size <= kEdge + 40; size++) sizes.push_back(size);
  while (sizes.size() < kSamples) sizes.push_back(1 + random() % 40000);
  // Neighbours of all sizes, also where a launch ends.
  std::shuffle(sizes.begin(), sizes.end(), random);
  std::vector<size_t> at;
  size_t bytes = 64;
  for (const size_t size : sizes) {
    at.push_back(bytes);
    bytes += (size + 15) / 16 * 16 + 32;  // shifts keep at least 16 bytes of poison between samples
  }
  std::vector<uint8_t> src(bytes), want(bytes), got(bytes);
  for (auto &value : src) value = static_cast<uint8_t>(random());
  uint8_t *device_src, *device_dst;
  CHECK(cudaMalloc(&device_src, bytes));
  CHECK(cudaMalloc(&device_dst, bytes));
  CHECK(cudaMemcpy(device_src, src.data(), bytes, cudaMemcpyHostToDevice));
  int checked = 0;
  for (size_t src_shift = 0; src_shift < 16; src_shift++) {
    for (size_t dst_shift = 0; dst_shift < 16; dst_shift++) {
      std::fill(want.begin(), want.end(), 0xef);
      CHECK(cudaMemcpy(device_dst, want.data(), bytes, cudaMemcpyHostToDevice));
      std::vector<custom_copy::Piece> batch;
      for (size_t i = 0; i < sizes.size(); i++) {
        const size_t from = at[i] + src_shift, to = at[i] + dst_shift;
        batch.push_back({device_dst + to, device_src + from, static_cast<int64_t>(sizes[i])});
        std::copy_n(src.begin() + from, sizes[i], want.begin() + to);
      }
      const int launches = Copy(batch);
      CHECK(cudaGetLastError());
      CHECK(cudaStreamSynchronize(stream));
      CHECK(cudaMemcpy(got.data(), device_dst, bytes, cudaMemcpyDeviceToHost));
      if (got != want || launches != 3) {
        const auto where = std::mismatch(got.begin(), got.end(), want.begin()).first - got.begin();
        std::fprintf(stderr, "custom_copy: from shift %zu to shift %zu, %d launches: differs at byte %zd of %zu\n",
                     src_shift, dst_shift, launches, static_cast<ssize_t>(where), bytes);
        std::exit(1);
      }
      checked += kSamples;
    }
  }
  CHECK(cudaFree(device_src));
  CHECK(cudaFree(device_dst));
  return checked;
}

/** Every number of pixels around a word and a block, every alignment of input and output. Returns the samples. */
int NormalizeCheck() {
  std::mt19937 random(9);
  std::vector<int> sizes;
  for (int i = 1; i < 40; i++) sizes.push_back(i);
  for (int edge : {4096, 8192}) {
    for (int i = edge - 18; i < edge + 18; i++) sizes.push_back(i);
  }
  for (int i = 0; i < 60; i++) sizes.push_back(1 + static_cast<int>(random() % 100000));
  int checked = 0;
  for (int channels = 1; channels <= 4; channels++) {
    normalize_permute::Channels parameters;
    for (int c = 0; c < 4; c++) {
      parameters.mean[c] = static_cast<float>(random() % 25500) / 100;
      parameters.factor[c] = 1.0f / (1 + random() % 200);
    }
    for (int shift = 0; shift < 16; shift++) {
      // Samples lie one after another, each at an odd distance, with poison between them and in all outputs.
      size_t src_bytes = 64, dst_values = 64;
      std::vector<size_t> src_at, dst_at;
      for (int pixels : sizes) {
        src_at.push_back(src_bytes + shift);
        dst_at.push_back(dst_values + shift);
        src_bytes += pixels * channels + random() % 33;
        dst_values += pixels * channels + random() % 33;
      }
      src_bytes += 128, dst_values += 128;
      std::vector<uint8_t> src(src_bytes);
      for (auto &value : src) value = static_cast<uint8_t>(random());
      std::vector<uint16_t> want(dst_values, 0x7eef), got(dst_values);
      uint8_t *device_src;
      uint16_t *device_dst;
      CHECK(cudaMalloc(&device_src, src_bytes));
      CHECK(cudaMalloc(&device_dst, dst_values * 2));
      CHECK(cudaMemcpy(device_src, src.data(), src_bytes, cudaMemcpyHostToDevice));
      CHECK(cudaMemcpy(device_dst, want.data(), dst_values * 2, cudaMemcpyHostToDevice));
      std::vector<normalize_permute::Sample> batch;
      for (size_t i = 0; i < sizes.size(); i++) {
        batch.push_back({device_dst + dst_at[i], device_src + src_at[i], sizes[i]});
        for (int pixel = 0; pixel < sizes[i]; pixel++) {
          for (int c = 0; c < channels; c++) {
            const float value = src[src_at[i] + pixel * channels + c];
            want[dst_at[i] + static_cast<size_t>(c) * sizes[i] + pixel] =
                static_cast<__half_raw>(__float2half_rn((value - parameters.mean[c]) * parameters.factor[c])).x;
          }
        }
      }
      Normalize(batch, parameters, channels);
      CHECK(cudaGetLastError());
      CHECK(cudaStreamSynchronize(stream));
      CHECK(cudaMemcpy(got.data(), device_dst, dst_values * 2, cudaMemcpyDeviceToHost));
      if (got != want) {
        const auto at = std::mismatch(got.begin(), got.end(), want.begin()).first - got.begin();
        std::fprintf(stderr, "normalize_permute: %d channels, shift %d: value %zd is %04x and not %04x\n", channels, shift,
                     static_cast<ssize_t>(at), got[at], want[at]);
        std::exit(1);
      }
      checked += static_cast<int>(sizes.size());
      CHECK(cudaFree(device_src));
      CHECK(cudaFree(device_dst));
    }
  }
  return checked;
}

}  // namespace

int main() {
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  std::printf("{\n\"copy_samples_right\": %d,\n", CopyCheck());
  std::printf("\"normalize_samples_right\": %d,\n", NormalizeCheck());
  CopyLarge();
  CopySmall();
  NormalizeLarge("normalize_rgb", 3, 1080, 1920, 64, ",");
  NormalizeLarge("normalize_rgb_odd", 3, 1079, 1919, 64, ",");
  NormalizeLarge("normalize_grey", 1, 2160, 3840, 48, ",");
  NormalizeLarge("normalize_two", 2, 1080, 1920, 96, ",");
  NormalizeLarge("normalize_rgba", 4, 1080, 1920, 48, ",");
  NormalizeLarge("normalize_rgb_224", 3, 224, 224, 128, "");
  std::printf("}\n");
  return 0;
}
