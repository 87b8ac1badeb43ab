// What mutants are judged by: small problems for every kernel.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "driver/executor.hpp"
#include <tilewright/types.hpp>

namespace tilewright::mutation {

/// A problem with its tensors. run says what is wrong with what the executor's kernels wrote; nothing where all is
/// right. It may throw tilewright::Error.
struct Case {
  std::string name;
  Architecture architecture;
  std::function<std::string(const std::shared_ptr<Executor>&)> run;
  bool races = true; // looked for
};

/// How to make a case: drawing a problem takes a while, and threads share it.
struct CaseMaker {
  std::string name;
  std::function<Case()> make;
};

std::vector<CaseMaker> all_cases();

} // namespace tilewright::mutation
