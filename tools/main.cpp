// The `tilewright` command. Exit status: 0 done, 1 failed, 2 wrong usage.
#include <cstdio>
#include <exception>
#include <new>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "commands.hpp"
#include "options.hpp"
#include <tilewright/error.hpp>

namespace {

constexpr int failed = 1, wrong_usage = 2;

int report(const tilewright::Error& error, int status) {
  fmt::print(stderr, "tilewright: {}: {}\n  allowed: {}\n  to do:   {}\n", to_string(error.code()), error.problem(),
             error.allowed(), error.remedy());
  return status;
}

} // namespace

int main(int argument_count, char** arguments) {
  CLI::App application{"Sparse attention for video, compiled for one configuration at run time."};
  application.set_version_flag("--version", TILEWRIGHT_VERSION);
  application.require_subcommand(1);
  tilewright::tools::add_attend(application);
  tilewright::tools::add_source(application);
  tilewright::tools::add_compile(application);
  tilewright::tools::add_warmup(application);
  tilewright::tools::add_tune(application);
  tilewright::tools::add_bench(application);
  tilewright::tools::add_mask(application);
  tilewright::tools::add_cache(application);
  tilewright::tools::add_doctor(application);
  tilewright::tools::add_demo(application);
  try {
    application.parse(argument_count, arguments);
    return std::fflush(stdout) == 0 ? 0 : failed;
  } catch (const CLI::ParseError& error) {
    return application.exit(error) == 0 ? 0 : wrong_usage;
  } catch (const tilewright::tools::UsageError& error) {
    return report(error, wrong_usage);
  } catch (const tilewright::Error& error) {
    return report(error, failed);
  } catch (const std::bad_alloc&) {
    return report({tilewright::ErrorCode::invalid_argument, "this machine has too little memory for these tensors",
                   "tensors, and a float64 copy where they are compared, fit the memory", "use fewer heads or tokens"},
                  failed);
  } catch (const std::exception& error) {
    return report({tilewright::ErrorCode::internal, error.what(), "no such failure is expected",
                   "report this as a fault of tilewright, with the command line"},
                  failed);
  }
}
