#include "compiler/nvrtc_api.hpp"

#include <dlfcn.h>

#include <fmt/format.h>

#include "compiler/build_id.hpp"
#include <tilewright/error.hpp>

namespace tilewright::compiler {
namespace {

Error unusable(const std::filesystem::path& path, std::string_view reason) {
  return {ErrorCode::unsupported, fmt::format("'{}' cannot be used: {}", path.string(), reason),
          fmt::format("libnvrtc {} or later, for this machine, is needed", to_string(oldest_nvrtc)),
          "install nvidia-cuda-nvrtc with pip or the CUDA toolkit, or name another library in $TILEWRIGHT_NVRTC"};
}

} // namespace

NvrtcApi open_nvrtc(const std::filesystem::path& path) {
  void* const library = ::dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr)
    throw unusable(path, ::dlerror());
  const auto find = [&]<typename Function>(const char* name, Function& function) {
    void* const symbol = ::dlsym(library, name);
    if (symbol == nullptr)
      throw unusable(path, fmt::format("it has no function {}", name));
    function = reinterpret_cast<Function>(symbol);
  };
  NvrtcApi api;
  api.path = path;
  find("nvrtcGetErrorString", api.get_error_string);
  find("nvrtcCreateProgram", api.create_program);
  find("nvrtcDestroyProgram", api.destroy_program);
  find("nvrtcCompileProgram", api.compile_program);
  find("nvrtcGetProgramLogSize", api.get_log_size);
  find("nvrtcGetProgramLog", api.get_log);
  find("nvrtcGetCUBINSize", api.get_cubin_size);
  find("nvrtcGetCUBIN", api.get_cubin);

  NvrtcResult (*get_version)(int*, int*) = nullptr;
  find("nvrtcVersion", get_version);
  if (get_version(&api.version.major, &api.version.minor) != nvrtc_success || api.version < oldest_nvrtc)
    throw unusable(path, fmt::format("it is NVRTC {}", to_string(api.version)));

  NvrtcResult (*count_architectures)(int*) = nullptr;
  NvrtcResult (*get_architectures)(int*) = nullptr;
  find("nvrtcGetNumSupportedArchs", count_architectures);
  find("nvrtcGetSupportedArchs", get_architectures);
  int count = 0;
  if (count_architectures(&count) != nvrtc_success || count <= 0)
    throw unusable(path, "it does not tell which architectures it knows");
  api.architectures.resize(static_cast<std::size_t>(count));
  if (get_architectures(api.architectures.data()) != nvrtc_success)
    throw unusable(path, "it does not tell which architectures it knows");

  api.build_id = build_id_of_loaded(reinterpret_cast<const void*>(api.create_program));
  if (api.build_id.empty())
    api.build_id = build_id_of_file(path);
  return api;
}

} // namespace tilewright::compiler
