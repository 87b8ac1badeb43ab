// Backward calls: what they launch, and how bad ones are refused: in three parts, before anything is launched or
// written.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "calls.hpp"
#include "fake_executor.hpp"

using namespace tilewright;
using namespace tilewright::testing;

namespace {

constexpr auto invalid = ErrorCode::invalid_argument;
constexpr auto unsupported = ErrorCode::unsupported;

/// The gradient of one of calls.hpp's forward calls. Gradients start as poison.
struct Backward {
  Backward(Calls& calls, Pattern given)
      : pattern(std::move(given)), dout(like(calls.call.q)), dq(like(calls.call.q)), dk(like(calls.call.k)),
        dv(like(calls.call.v)), key_counts(DataType::int32, {Calls::batch, Calls::heads, Calls::tiles}),
        offsets(DataType::int32, {Calls::batch, Calls::heads, Calls::tiles + 1}),
        query_indices(DataType::int32, {Calls::batch, Calls::heads, Calls::tiles * Calls::capacity}),
        call{.q = calls.call.q,
             .k = calls.call.k,
             .v = calls.call.v,
             .out = calls.call.out,
             .dout = dout.view(),
             .lse = *calls.call.lse,
             .dq = dq.view(),
             .dk = dk.view(),
             .dv = dv.view()},
        transposed{calls.lists.counts, calls.lists.indices, key_counts.view(), offsets.view(), query_indices.view()} {
    workspace.resize(Runtime::workspace_bytes(call, pattern) + 128);
    call.workspace = workspace.data() + (128 - reinterpret_cast<std::uintptr_t>(workspace.data()) % 128) % 128;
    call.workspace_bytes = workspace.size() - 128;
  }

  static HostTensor like(const TensorView& view) {
    const auto& e = view.extents;
    return HostTensor(view.dtype, {e[0], e[1], e[2], e[3]});
  }

  Pattern pattern;
  HostTensor dout, dq, dk, dv, key_counts, offsets, query_indices;
  AttentionBackward call;
  TransposeLists transposed;
  std::vector<std::byte> workspace;
};

template <class Fixture> struct With { Fixture forward; };
struct ListBackward : private With<ListCalls>, Backward {
  ListBackward() : Backward(forward, forward.lists) {}
};
struct SlidingBackward : private With<SlidingCalls>, Backward {
  SlidingBackward() : Backward(forward, forward.sliding) {}
};

void check_refused(Backward& backward, ErrorCode code, const std::string& problem, const RuntimeOptions& options = {},
                   std::set<const void*> foreign = {}) {
  CAPTURE(problem);
  const auto executor = std::make_shared<FakeExecutor>();
  executor->foreign = std::move(foreign);
  Runtime runtime(executor, options);
  try {
    runtime.attention_backward(backward.call, backward.pattern);
    FAIL_CHECK("not refused");
  } catch (const Error& error) {
    INFO(std::string(error.what()));
    CHECK(to_string(error.code()) == to_string(code));
    CHECK(error.problem().find(problem) != std::string::npos);
    CHECK(!error.allowed().empty());
    CHECK(!error.remedy().empty());
  }
  CHECK(executor->launches.empty());
  for (HostTensor* gradient : {&backward.dq, &backward.dk, &backward.dv}) {
    const auto& e = gradient->view().extents;
    CHECK(gradient->unwritten() == e[0] * e[1] * e[2] * e[3]);
  }
}

std::vector<Operator> launched(Backward& backward) {
  const auto executor = std::make_shared<FakeExecutor>();
  Runtime(executor).attention_backward(backward.call, backward.pattern);
  std::vector<Operator> operators;
  for (const RecordedLaunch& launch : executor->launches)
    operators.push_back(launch.spec.problem.op);
  return operators;
}

} // namespace

TEST_CASE("backward: kernels in order, lists transposed unless the caller has") {
  const std::vector<Operator> kernels{Operator::attention_backward_delta, Operator::attention_backward_key,
                                      Operator::attention_backward_query};
  std::vector<Operator> with_lists{Operator::transpose_lists, Operator::transpose_lists};
  with_lists.insert(with_lists.end(), kernels.begin(), kernels.end());
  SlidingBackward sliding;
  CHECK(launched(sliding) == kernels);
  ListBackward lists;
  CHECK(launched(lists) == with_lists);
  const std::size_t bytes = Runtime::workspace_bytes(lists.call, lists.pattern);
  lists.call.transposed = lists.transposed;
  CHECK(launched(lists) == kernels);
  CHECK(Runtime::workspace_bytes(lists.call, lists.pattern) < bytes);
}

TEST_CASE("backward: tensors that do not fit") {
  const std::vector<std::pair<const char*, std::function<void(AttentionBackward&)>>> cases{
      {"dout has dtype fp16", [](auto& call) { call.dout.dtype = DataType::fp16; }},
      {"dout has extent 255 in dimension 1 and q has 256", [](auto& call) { call.dout.extents[1] = 255; }},
      {"dq has extent 2 in dimension 2 and q has 4", [](auto& call) { call.dq.extents[2] = 2; }},
      {"dk has extent 4 in dimension 2 and k has 2", [](auto& call) { call.dk.extents[2] = 4; }},
      {"dv has extent 1 in dimension 0 and v has 2", [](auto& call) { call.dv.extents[0] = 1; }},
      {"dq has 3 dimensions", [](auto& call) { call.dq.rank = 3; }},
      {"dk is a null pointer", [](auto& call) { call.dk.data = nullptr; }},
      {"dv has stride 2", [](auto& call) { call.dv.strides[3] = 2; }},
      {"dout has stride 260", [](auto& call) { call.dout.strides[1] = 260; }},
      {"lse", [](auto& call) { call.lse.dtype = DataType::bf16; }},
      {"lse", [](auto& call) { call.lse.data = nullptr; }},
      {"out's tokens is 255 and q's tokens is 256", [](auto& call) { call.out.extents[1] = 255; }},
      {"dq has stride 0", [](auto& call) { call.dq.strides[0] = 0; }},
      {"dlse has dtype bf16", [](auto& call) { call.dlse->dtype = DataType::bf16; }},
      {"dlse is a null pointer", [](auto& call) { call.dlse->data = nullptr; }},
      {"dlse's tokens is 255 and q's tokens is 256", [](auto& call) { call.dlse->extents[2] = 255; }},
      {"dlse has stride 2 in its last dimension", [](auto& call) { call.dlse->strides[2] = 2; }},
  };
  for (const auto& [problem, spoil] : cases) {
    ListBackward backward;
    backward.call.dlse = backward.call.lse;
    spoil(backward.call);
    check_refused(backward, invalid, problem);
  }
}

TEST_CASE("backward: the workspace") {
  {
    ListBackward backward;
    backward.call.workspace = nullptr;
    check_refused(backward, invalid, "the workspace is");
  }
  {
    ListBackward backward;
    backward.call.workspace_bytes -= 1;
    check_refused(backward, invalid, "the workspace is");
  }
  {
    ListBackward backward;
    backward.call.workspace = static_cast<std::byte*>(backward.call.workspace) + 16;
    check_refused(backward, invalid, "the workspace is");
  }
}

TEST_CASE("backward: lists that the caller has transposed") {
  const std::vector<std::pair<const char*, std::function<void(TransposeLists&)>>> cases{
      {"transposed has key_counts of extents [1, 4, 4]",
       [](auto& lists) {
         for (TensorView* view :
              {&lists.key_counts, &lists.offsets, &lists.query_indices, &lists.counts, &lists.indices})
           view->extents[0] = 1;
       }},
      {"offsets", [](auto& lists) { lists.offsets.extents[2] = 4; }},
      {"offsets", [](auto& lists) { lists.offsets.data = nullptr; }},
      {"query_indices has room for 11 query tiles", [](auto& lists) { lists.query_indices.extents[2] = 11; }},
      {"key_counts", [](auto& lists) { lists.key_counts.rank = 2; }},
      {"query_indices", [](auto& lists) { lists.query_indices.dtype = DataType::float32; }},
  };
  for (const auto& [problem, spoil] : cases) {
    ListBackward backward;
    spoil(backward.transposed);
    if (std::string(problem) == "query_indices has room for 11 query tiles")
      backward.transposed.query_indices.strides = {44, 11, 1};
    backward.call.transposed = backward.transposed;
    check_refused(backward, invalid, problem);
  }
  SlidingBackward sliding;
  sliding.call.transposed = sliding.transposed;
  check_refused(sliding, invalid, "transposed is given for a pattern without lists");
}

TEST_CASE("backward: every pointer is asked for its device") {
  ListBackward backward;
  AttentionBackward& call = backward.call;
  call.transposed = backward.transposed;
  std::vector<float> dlse(Calls::batch * Calls::heads * 256);
  call.dlse = call.lse;
  call.dlse->data = dlse.data();
  const std::vector<std::pair<const char*, const void*>> pointers{
      {"q is foreign", call.q.data},
      {"k is foreign", call.k.data},
      {"v is foreign", call.v.data},
      {"out is foreign", call.out.data},
      {"lse is foreign", call.lse.data},
      {"dout is foreign", call.dout.data},
      {"dlse is foreign", call.dlse->data},
      {"dq is foreign", call.dq.data},
      {"dk is foreign", call.dk.data},
      {"dv is foreign", call.dv.data},
      {"workspace is foreign", call.workspace},
      {"counts is foreign", call.transposed->counts.data},
      {"indices is foreign", call.transposed->indices.data},
      {"offsets is foreign", call.transposed->offsets.data},
      {"query_indices is foreign", call.transposed->query_indices.data},
  };
  for (const auto& [problem, pointer] : pointers)
    check_refused(backward, invalid, problem, {}, {pointer});
}

TEST_CASE("backward: families and schedules that cannot compute the call") {
  ListBackward backward;
  check_refused(backward, unsupported, "no schedule computes 'attention_backward_key:", {.family = Family::sm90});
  RuntimeOptions options;
  options.backward_key_schedule = parse_schedule("family=sm80,block_q=64,block_k=48,stages=2,warps=4,blocks_per_"
                                                 "processor=1,softmax=online");
  check_refused(backward, unsupported, "schedule 'family=sm80,block_q=64,block_k=48", options);
  options.backward_key_schedule.reset();
  options.backward_query_schedule = parse_schedule("family=sm80,block_q=64,block_k=64,stages=9,warps=4,blocks_per_"
                                                   "processor=1,softmax=online");
  check_refused(backward, unsupported, "schedule 'family=sm80,block_q=64,block_k=64,stages=9", options);
}
