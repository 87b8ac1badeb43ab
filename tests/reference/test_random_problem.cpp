#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <set>
#include <string>

#include "schedule/heuristic.hpp"
#include "support_random_problem.hpp"
#include <tilewright/reference.hpp>

using namespace tilewright;
using tilewright::testing::check_random_problem;
using tilewright::testing::HostTensor;
using tilewright::testing::RandomLimits;
using tilewright::testing::RandomProblem;

namespace {

constexpr RandomLimits small{.max_tokens = 256, .max_text = 96, .max_flops = 2e7};

const auto run_reference = [](const AttentionForward& call, const Pattern& pattern) {
  reference::attention_forward_into(call, pattern);
};

/// Dense problems have no rows without keys: every element and every LSE can be wrong.
constexpr RandomLimits dense{.max_tokens = 256, .max_flops = 2e7, .pattern = PatternKind::dense};

/// What check() says of the reference after its outputs were tampered with.
template <typename Tamper> std::string verdict(std::uint64_t seed, Tamper tamper) {
  return check_random_problem(seed, dense, [&](const AttentionForward& call, const Pattern& pattern) {
    run_reference(call, pattern);
    tamper(call);
  });
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

std::uint16_t* first_of(const TensorView& view) { return static_cast<std::uint16_t*>(view.data); }

} // namespace

TEST_CASE("random problems: the reference passes its own check, and each is one that the library computes") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    RandomProblem random(seed, small);
    CAPTURE(random.description());
    CHECK(random.check(run_reference) == "");
    const Problem problem = random.problem();
    CHECK_NOTHROW(validate(problem));
    CHECK(closed_variants(problem) == std::vector<Problem>{problem});
    CHECK_NOTHROW(schedule::default_spec(problem, {8, 6, 0}));
  }
}

TEST_CASE("random problems: a seed makes the same problem again, and pinned properties are kept") {
  const RandomLimits pinned{.max_tokens = 256,
                            .max_flops = 2e7,
                            .pattern = PatternKind::block_list,
                            .dtype = DataType::fp16,
                            .head_dim = 64,
                            .layout = Layout::tiled,
                            .any_strides = false};
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    RandomProblem first(seed, small), second(seed, small), restricted(seed, pinned);
    CHECK(first.description() == second.description());
    const auto sum = [](RandomProblem& problem) {
      return reference::attention_forward(problem.call(), problem.pattern()).out;
    };
    CHECK(sum(first) == sum(second));
    const Problem problem = restricted.problem();
    CHECK(problem.pattern == PatternKind::block_list);
    CHECK(problem.dtype == DataType::fp16);
    CHECK(problem.head_dim == 64);
    CHECK(problem.layout == Layout::tiled);
  }
}

TEST_CASE("random problems: every feature is drawn") {
  std::map<std::string, int> seen;
  std::set<std::string> tiles;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    RandomProblem random(seed, small);
    const Problem problem = random.problem();
    const AttentionForward& call = random.call();
    ++seen[std::string(to_string(problem.dtype))];
    ++seen[std::string(to_string(problem.layout))];
    ++seen["head_dim " + std::to_string(problem.head_dim)];
    ++seen["edges " + std::to_string(static_cast<int>(problem.edges))];
    ++seen["batch " + std::to_string(call.q.extents[0])];
    seen["grouped heads"] += call.q.extents != call.k.extents ? 1 : 0;
    seen["no lse"] += call.lse ? 0 : 1;
    seen["scale"] += call.scale ? 1 : 0;
    tiles.insert(to_string(problem.tile));
    if (const auto* sliding = std::get_if<SlidingTile>(&random.pattern())) {
      ++seen["sliding tile"];
      seen["windows per head"] += sliding->windows.size() > 1 ? 1 : 0;
      seen["text"] += sliding->text_length.value_or(0) > 0 ? 1 : 0;
      seen["text of length 0"] += sliding->text_length == 0 ? 1 : 0;
      seen["without text"] += sliding->text_length ? 0 : 1;
    } else if (const auto* lists = std::get_if<BlockList>(&random.pattern())) {
      ++seen["block list"];
      seen["two tilings"] += lists->key_tile ? 1 : 0;
      seen["query sizes"] += lists->query_sizes ? 1 : 0;
      seen["key sizes"] += lists->key_sizes ? 1 : 0;
      seen["shared lists"] += lists->counts.extents[0] * lists->counts.extents[1] == 1 ? 1 : 0;
      const auto result = reference::attention_forward(call, random.pattern());
      seen["rows without keys"] += std::count(result.lse.begin(), result.lse.end(), -HUGE_VAL) > 0 ? 1 : 0;
    } else {
      ++seen["dense"];
    }
  }
  for (const char* feature : {"bf16",
                              "fp16",
                              "raster",
                              "tiled",
                              "head_dim 64",
                              "head_dim 128",
                              "edges 0",
                              "edges 1",
                              "edges 2",
                              "batch 1",
                              "batch 2",
                              "batch 3",
                              "grouped heads",
                              "no lse",
                              "scale",
                              "sliding tile",
                              "windows per head",
                              "text",
                              "text of length 0",
                              "without text",
                              "block list",
                              "two tilings",
                              "query sizes",
                              "key sizes",
                              "shared lists",
                              "rows without keys",
                              "dense"}) {
    CAPTURE(feature);
    CHECK(seen[feature] >= 5);
  }
  CHECK(tiles.size() == 9); // eight, and 0x0x0 of dense problems
}

TEST_CASE("random problems: every kind of wrong answer is noticed") {
  constexpr std::uint64_t seed = 3;
  REQUIRE(RandomProblem(seed, dense).call().lse);
  CHECK(verdict(seed, [](const AttentionForward&) {}) == "");

  const std::string nothing = check_random_problem(seed, dense, [](const auto&, const auto&) {});
  CHECK(contains(nothing, "seed 3: attention_forward:pattern="));
  CHECK(contains(nothing, "elements of out were not written"));
  CHECK(contains(nothing, "elements of lse were not written"));
  CHECK(contains(verdict(seed, [](const auto& call) { *first_of(call.out) = HostTensor::poison; }),
                 "\n  1 elements of out were not written"));
  CHECK(contains(verdict(seed, [](const auto& call) { first_of(call.out)[-1] = 0; }), "2 bytes beside out's elements"));
  CHECK(contains(verdict(seed, [](const auto& call) { static_cast<float*>(call.lse->data)[-1] = 0; }),
                 "4 bytes beside lse's elements"));
  CHECK(contains(verdict(seed, [](const auto& call) { *first_of(call.k) ^= 1; }), "an input was written to"));
  CHECK(contains(verdict(seed, [](const auto& call) { first_of(call.v)[-1] = 0; }), "an input was written to"));
  CHECK(contains(verdict(seed, [](const auto& call) { *static_cast<float*>(call.lse->data) += 2e-4f; }), "LSE error"));
  // An element of one row, by more than that row's own size.
  const std::string one_row = verdict(seed, [](const auto& call) {
    *first_of(call.out) = reference::encode(call.out.dtype, 1 + reference::decode(call.out.dtype, *first_of(call.out)));
  });
  CHECK(contains(one_row, "in batch 0, head 0, row 0"));
  // Every element, by 1 %.
  const std::string whole = verdict(seed, [](const auto& call) {
    auto values = reference::read_tensor(call.out, call.layout);
    for (double& value : values)
      value *= 1.01;
    reference::write_tensor(call.out, call.layout, values);
  });
  CHECK(contains(whole, "relative L2 error 0.0"));
}

TEST_CASE("random problems: the call moves to other memory") {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    RandomProblem random(seed, small);
    const std::string verdict = random.check([&](const AttentionForward&, const Pattern&) {
      std::list<std::vector<std::byte>> device;
      std::map<const void*, void*> moved; // of each tensor's first element
      for (HostTensor& tensor : random.tensors()) {
        auto& copy = device.emplace_back(tensor.allocation(), tensor.allocation() + tensor.allocation_bytes());
        moved[tensor.view().data] = copy.data() + HostTensor::guard_bytes;
      }
      const auto [call, pattern] = random.relocated([&](void* pointer) { return moved.at(pointer); });
      reference::attention_forward_into(call, pattern);
      auto copy = device.begin();
      for (HostTensor& tensor : random.tensors())
        std::memcpy(tensor.allocation(), (copy++)->data(), tensor.allocation_bytes());
    });
    CHECK(verdict == "");
  }
}
