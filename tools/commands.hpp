// The subcommands of `tilewright`, one a file. Each function adds its command to the application; the command runs
// while the command line is parsed, and throws tilewright::Error (exit status 1) or UsageError (exit status 2).
#pragma once

namespace CLI {
class App;
}

namespace tilewright::tools {

void add_attend(CLI::App& application);
void add_source(CLI::App& application);
void add_compile(CLI::App& application);
void add_warmup(CLI::App& application);
void add_tune(CLI::App& application);
void add_bench(CLI::App& application);
void add_mask(CLI::App& application);
void add_cache(CLI::App& application);
void add_doctor(CLI::App& application);
void add_demo(CLI::App& application);

} // namespace tilewright::tools
