#include <doctest/doctest.h>

#include <string>

#include <tilewright/error.hpp>
#include <tilewright/schedule.hpp>

using namespace tilewright;

TEST_CASE("a schedule's text holds the fields that its family uses") {
  const Schedule sm80{
      .block_q = 128, .block_k = 64, .stages = 2, .warps = 4, .blocks_per_processor = 2, .family = Family::sm80};
  CHECK(to_string(sm80) == "family=sm80,block_q=128,block_k=64,stages=2,warps=4,blocks_per_processor=2,softmax=online");
  const Schedule sm90{.block_q = 192,
                      .block_k = 128,
                      .stages = 2,
                      .consumers = 3,
                      .consumer_registers = 152,
                      .producer_registers = 56,
                      .cluster = 1,
                      .overlap = 1,
                      .family = Family::sm90,
                      .softmax = Softmax::fixed};
  CHECK(to_string(sm90) == "family=sm90,block_q=192,block_k=128,stages=2,consumers=3,consumer_registers=152,"
                           "producer_registers=56,cluster=1,overlap=1,softmax=fixed");
  for (const Schedule& schedule :
       {sm80, sm90, Schedule{}, Schedule{.block_q = 32767, .stages = 255, .softmax = Softmax::lazy}})
    CHECK(parse_schedule(to_string(schedule)) == schedule);
}

TEST_CASE("a schedule's fields stand in any order") {
  CHECK(parse_schedule("warps=2,family=sm80,block_q=64") ==
        Schedule{.block_q = 64, .warps = 2, .family = Family::sm80});
}

TEST_CASE("errors in a schedule's text name the field") {
  const auto problem_of = [](const char* text) -> std::string {
    try {
      parse_schedule(text);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::invalid_argument);
      return error.problem();
    }
    return "no error";
  };
  CHECK(problem_of("family=sm70") == "schedule field family is 'sm70'");
  CHECK(problem_of("stages=256") == "schedule field stages is '256'");
  CHECK(problem_of("block_q=-64") == "schedule field block_q is '-64'");
  CHECK(problem_of("block_q=32768") == "schedule field block_q is '32768'");
  CHECK(problem_of("softmax=exact") == "schedule field softmax is 'exact'");
  CHECK(problem_of("warp=4") == "schedule field 'warp' is unknown (its value: '4')");
  CHECK(problem_of("") == "schedule field '' has no '='");
}

TEST_CASE("a spec's text is problem, architecture and schedule") {
  const Spec spec{.problem = parse_problem("attention_forward:pattern=dense,edges=full"),
                  .schedule = parse_schedule("family=sm80,block_q=128"),
                  .architecture = {9, 0, 'a'}};
  CHECK(to_string(spec) == "attention_forward:pattern=dense,edges=full,dtype=bf16,head_dim=128,layout=raster@sm_90a/"
                           "family=sm80,block_q=128,softmax=online");
}
