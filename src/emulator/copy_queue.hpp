// Asynchronous copies (cp.async) of one thread that have been issued and are not finished.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace tilewright::emulator {

constexpr std::size_t asynchronous_copy_bytes = 16;

/// source: nullptr writes zeros. It is read when the copy takes effect, not before.
struct PendingCopy {
  unsigned char* destination;
  const void* source;
  std::uint64_t group;

  void take_effect() const {
    if (source == nullptr)
      std::memset(destination, 0, asynchronous_copy_bytes);
    else
      std::memcpy(destination, source, asynchronous_copy_bytes);
  }
};

class CopyQueue {
public:
  void add(unsigned char* destination, const void* source, bool at_once) {
    const PendingCopy copy{destination, source, open_group_};
    if (at_once)
      copy.take_effect();
    else
      pending_.push_back(copy);
  }
  void commit() { ++open_group_; }

  /// Copies of all committed groups but the newest `pending` take effect.
  void wait(std::uint64_t pending) {
    const std::uint64_t first_left = open_group_ > pending ? open_group_ - pending : 0;
    while (next_ < pending_.size() && pending_[next_].group < first_left)
      pending_[next_++].take_effect();
    if (next_ == pending_.size()) {
      pending_.clear();
      next_ = 0;
    }
  }

  /// At the thread's end: hardware finishes them some time.
  void finish() {
    commit();
    wait(0);
  }

  void clear() {
    pending_.clear();
    next_ = 0;
    open_group_ = 0;
  }

private:
  std::vector<PendingCopy> pending_;
  std::size_t next_ = 0; // those before it have taken effect
  std::uint64_t open_group_ = 0;
};

} // namespace tilewright::emulator
