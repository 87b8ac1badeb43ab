// VSA's selection and block lists from files.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "reference/convert.hpp"
#include "tools/attention_input.hpp"
#include "tools/selection.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::tools;

namespace {

constexpr std::int64_t head_dim = 64;

/// One batch and head of a 1 x 1 x length canvas whose tokens are value(token) in element 0 and zero elsewhere.
template <typename Value> HostTensor line(std::int64_t length, Value value) {
  HostTensor tensor{ElementType::bf16, {1, 1, 1, length, 1, head_dim}, {}};
  tensor.bytes.resize(static_cast<std::size_t>(length * head_dim) * sizeof(std::uint16_t));
  for (std::int64_t token = 0; token < length; ++token)
    tensor.as<std::uint16_t>()[static_cast<std::size_t>(token * head_dim)] =
        reference::encode(DataType::bf16, value(token));
  return tensor;
}

const Problem& line_problem() {
  static const Problem problem = parse_problem("attention_forward:pattern=block_list,tile=1x1x64,head_dim=64");
  return problem;
}

std::vector<std::int32_t> list_of(const HostLists& lists, std::int64_t query_tile) {
  const auto list = lists.list(0, 0, query_tile);
  return {list.begin(), list.end()};
}

Error error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::internal, "nothing was thrown", "", ""};
}

Safetensors lists_file(const char* name, std::vector<std::int64_t> shape, const std::vector<std::int32_t>& values) {
  HostTensor tensor = make_poisoned(ElementType::i32, std::move(shape));
  REQUIRE(tensor.as<std::int32_t>().size() == values.size());
  std::copy(values.begin(), values.end(), tensor.as<std::int32_t>().begin());
  Safetensors file;
  file.tensors.emplace(name, std::move(tensor));
  return file;
}

} // namespace

TEST_CASE("the largest mean scores are chosen, listed in ascending order, equal ones from the lowest tile on") {
  constexpr std::int64_t length = 5 * 64;
  const double key_means[] = {1, 3, 2, 3, 3};
  Safetensors file;
  file.tensors.emplace("q", line(length, [](std::int64_t token) { return token < 64 ? 1.0 : -1.0; }));
  file.tensors.emplace("k", line(length, [&](std::int64_t token) { return key_means[token / 64]; }));
  file.tensors.emplace("v", line(length, [](std::int64_t) { return 0.0; }));
  PatternChoice choice;
  choice.topk = 2;
  const AttentionInput input = read_attention_input(line_problem(), std::move(file), choice);
  CHECK(list_of(input.relation.lists, 0) == std::vector<std::int32_t>{1, 3});
  CHECK(list_of(input.relation.lists, 1) == std::vector<std::int32_t>{0, 2});
}

TEST_CASE("means are over a clipped tile's valid tokens, rounded to the input's type") {
  // The last tile has 32 tokens: divided by 64 it would lose. The mean 1 + 2^-8 of tile 1 rounds to 1 in bf16
  // and ties with tile 0.
  constexpr std::int64_t length = 2 * 64 + 32;
  Safetensors file;
  file.tensors.emplace("q", line(length, [](std::int64_t) { return 1.0; }));
  file.tensors.emplace("k", line(length, [](std::int64_t token) {
                         return token < 64 ? 1.0 : token < 128 ? (token < 96 ? 1.0 : 1.0 + 1.0 / 128) : 1.5;
                       }));
  file.tensors.emplace("v", line(length, [](std::int64_t) { return 0.0; }));
  PatternChoice choice;
  choice.topk = 2;
  const AttentionInput input = read_attention_input(line_problem(), std::move(file), choice);
  CHECK(list_of(input.relation.lists, 0) == std::vector<std::int32_t>{0, 2});
}

TEST_CASE("a topk that no list can have is refused") {
  for (const std::int64_t topk : {0, 6}) {
    Safetensors file;
    for (const char* name : {"q", "k", "v"})
      file.tensors.emplace(name, line(5 * 64, [](std::int64_t) { return 1.0; }));
    PatternChoice choice;
    choice.topk = topk;
    const Error error = error_of([&] { (void)read_attention_input(line_problem(), std::move(file), choice); });
    CHECK(error.problem() == fmt::format("topk is {}", topk));
    CHECK(error.allowed().find("1 to 5") == 0);
  }
}

TEST_CASE("lists are read with equal and with different lengths") {
  const HostLists equal = read_lists(lists_file("key_blocks", {1, 1, 2, 2}, {0, 3, 1, 2}), 2, 4);
  CHECK(list_of(equal, 0) == std::vector<std::int32_t>{0, 3});
  CHECK(list_of(equal, 1) == std::vector<std::int32_t>{1, 2});

  Safetensors file = lists_file("indices", {1, 1, 2, 2}, {0, 3, 1, -7});
  file.tensors.emplace("counts", lists_file("counts", {1, 1, 2}, {0, 1}).tensors.at("counts"));
  const HostLists different = read_lists(file, 2, 4);
  CHECK(list_of(different, 0).empty());
  CHECK(list_of(different, 1) == std::vector<std::int32_t>{1}); // what is behind the count does not matter
}

TEST_CASE("lists that are wrong are refused with their place") {
  const auto problem_of = [](const Safetensors& file) {
    return error_of([&] { (void)read_lists(file, 2, 4); }).problem();
  };
  CHECK(problem_of(lists_file("key_blocks", {1, 1, 2, 2}, {0, 3, 2, 1})) ==
        "entry 1 of the list of batch 0, head 0, query tile 1 is 1, after 2");
  CHECK(problem_of(lists_file("key_blocks", {1, 1, 2, 2}, {0, 3, 2, 2})) ==
        "entry 1 of the list of batch 0, head 0, query tile 1 is 2, after 2");
  CHECK(problem_of(lists_file("key_blocks", {1, 1, 2, 2}, {0, 4, 1, 2})) ==
        "entry 1 of the list of batch 0, head 0, query tile 0 is 4");
  CHECK(problem_of(lists_file("key_blocks", {1, 1, 2, 2}, {-1, 3, 1, 2})) ==
        "entry 0 of the list of batch 0, head 0, query tile 0 is -1");
  CHECK(problem_of(lists_file("key_blocks", {1, 1, 1, 2}, {0, 1})) == "key_blocks has lists for 1 query tiles");
  CHECK(problem_of(lists_file("key_blocks", {2, 2}, {0, 1, 2, 3})) == "key_blocks has the shape [2, 2]");
  CHECK(problem_of(lists_file("other", {1}, {0})) == "the file of block lists has no 'indices'");
  Safetensors file = lists_file("indices", {1, 1, 2, 2}, {0, 3, 1, 2});
  file.tensors.emplace("counts", lists_file("counts", {1, 1, 2}, {3, 1}).tensors.at("counts"));
  CHECK(problem_of(file) == "the count of batch 0, head 0, query tile 0 is 3");
}

TEST_CASE("random lists are ascending, of the asked length, and follow from the seed") {
  const HostLists lists = random_lists(1, 2, 8, 32, 5, 7);
  for (std::int64_t head = 0; head < 2; ++head)
    for (std::int64_t query = 0; query < 8; ++query) {
      const auto list = lists.list(0, head, query);
      REQUIRE(list.size() == 5);
      CHECK(std::adjacent_find(list.begin(), list.end(), std::greater_equal<>()) == list.end());
      CHECK(list.front() >= 0);
      CHECK(list.back() < 32);
    }
  CHECK(lists.indices == random_lists(1, 2, 8, 32, 5, 7).indices);
  CHECK(lists.indices != random_lists(1, 2, 8, 32, 5, 8).indices);
}
