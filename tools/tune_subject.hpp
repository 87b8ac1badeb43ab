// An attention call on a device, computed with one schedule or another.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "attention_input.hpp"
#include "bench_times.hpp"
#include "device.hpp"
#include <tilewright/tuner.hpp>

namespace tilewright::tools {

/// The name of the lock (cache/lock.hpp) under which one process of this user on this machine measures at a time.
constexpr std::uint64_t measuring_lock = 0x74756e65; // "tune"

class AttentionSubject final : public TuningSubject {
public:
  /// The device and the input outlive this object.
  AttentionSubject(Device& device, AttentionInput& input, CacheOptions cache);

  void prepare(const Schedule& schedule) override;
  double difference(const Schedule& schedule) override;
  double milliseconds(const Schedule& schedule) override;

private:
  Runtime& runtime(const Schedule& schedule);

  Device& device_;
  AttentionInput& input_;
  CacheOptions cache_;
  AttentionForward call_; // in the device's memory
  Pattern pattern_;
  Problem problem_;
  std::vector<float> values_; // of every 16-bit element
  L2Flush flush_;
  std::map<std::string, Runtime> runtimes_; // by the schedule's text
  std::vector<std::uint16_t> expected_;     // the default's result
};

} // namespace tilewright::tools
