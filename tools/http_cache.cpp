#include "http_cache.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <mutex>

#include <curl/curl.h>
#include <fmt/format.h>

#include "signature.hpp"
#include "support/environment.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

constexpr std::string_view trailer = "TWSIGNED"; // behind the signature's 64 bytes
constexpr std::size_t largest_entry = std::size_t{64} << 20;
constexpr long ok = 200, not_found = 404, gone = 410;

struct FreeHandle {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
using Handle = std::unique_ptr<CURL, FreeHandle>;

[[noreturn]] void refuse_answer(const std::string& address, std::string_view reason) {
  throw Error(ErrorCode::cache_corrupt, fmt::format("the remote cache {}: {}", address, reason),
              "a reachable server with sound entries is used",
              "see the server's log, or unset TILEWRIGHT_CACHE_REMOTE");
}

std::size_t receive(char* bytes, std::size_t size, std::size_t count, void* to) {
  auto& text = *static_cast<std::string*>(to);
  if (text.size() + size * count > largest_entry)
    return 0; // ends the transfer with an error
  text.append(bytes, size * count);
  return size * count;
}

std::size_t hand_over(char* to, std::size_t size, std::size_t count, void* from) {
  auto& rest = *static_cast<std::string_view*>(from);
  const std::size_t bytes = std::min(size * count, rest.size());
  std::memcpy(to, rest.data(), bytes);
  rest.remove_prefix(bytes);
  return bytes;
}

Handle open(const std::string& address, const HttpCacheOptions& remote, std::string& answer) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  Handle handle(curl_easy_init());
  curl_easy_setopt(handle.get(), CURLOPT_URL, address.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle.get(), CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(remote.connect_patience.count()));
  curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT_MS, static_cast<long>(remote.patience.count()));
  if (!remote.authorities.empty()) {
    curl_easy_setopt(handle.get(), CURLOPT_CAINFO, remote.authorities.c_str());
    curl_easy_setopt(handle.get(), CURLOPT_CAPATH, nullptr); // these alone, not the system's as well
  }
  curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, receive);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &answer);
  return handle;
}

/// The status of the answer.
long perform(const Handle& handle, const std::string& address) {
  const CURLcode result = curl_easy_perform(handle.get());
  if (result != CURLE_OK)
    refuse_answer(address, curl_easy_strerror(result));
  long status = 0;
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  return status;
}

class HttpCache final : public RemoteCache {
public:
  explicit HttpCache(HttpCacheOptions options) : options_(std::move(options)) {}

  std::optional<std::string> fetch(const std::string& name) override {
    std::string file;
    const std::string address = options_.address + "/" + name;
    const long status = perform(open(address, options_, file), address);
    if (status == not_found || status == gone)
      return std::nullopt;
    if (status != ok)
      refuse_answer(address, fmt::format("it answered with status {}", status));
    std::string signature;
    if (file.size() > trailer.size() + signature_bytes && file.ends_with(trailer)) {
      file.resize(file.size() - trailer.size());
      signature = file.substr(file.size() - signature_bytes);
      file.resize(file.size() - signature_bytes);
    }
    if (!options_.public_key.empty() && !is_signed(file, signature, options_.public_key))
      refuse_answer(address, fmt::format("the entry is not signed with the key that belongs to {}",
                                         options_.public_key.string()));
    return file;
  }

private:
  HttpCacheOptions options_;
};

} // namespace

std::shared_ptr<RemoteCache> make_http_cache(HttpCacheOptions options) {
  return std::make_shared<HttpCache>(std::move(options));
}

HttpCacheOptions http_options_of_environment(std::string address) {
  const auto named = [](const char* name) { return support::environment(name).value_or(""); };
  HttpCacheOptions options{.address = std::move(address),
                           .public_key = named("TILEWRIGHT_CACHE_PUBLIC_KEY"),
                           .authorities = named("TILEWRIGHT_CACHE_AUTHORITIES")};
  if (const auto text = support::environment("TILEWRIGHT_CACHE_PATIENCE")) {
    int milliseconds = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), milliseconds);
    if (error != std::errc{} || end != text->data() + text->size() || milliseconds <= 0)
      throw Error(ErrorCode::invalid_argument, fmt::format("$TILEWRIGHT_CACHE_PATIENCE is '{}'", *text),
                  "milliseconds above 0 are allowed", "correct TILEWRIGHT_CACHE_PATIENCE, or unset it");
    options.patience = std::chrono::milliseconds(milliseconds);
    options.connect_patience = std::max(options.connect_patience, options.patience / 2);
  }
  return options;
}

std::shared_ptr<RemoteCache> remote_cache_of_environment() {
  auto address = support::environment("TILEWRIGHT_CACHE_REMOTE");
  return address ? make_http_cache(http_options_of_environment(std::move(*address))) : nullptr;
}

void put_remote(const HttpCacheOptions& remote, const std::string& name, std::string_view bytes) {
  using namespace std::chrono_literals;
  std::string answer;
  const std::string target = remote.address + "/" + name;
  HttpCacheOptions patient = remote;
  patient.connect_patience = 5s;
  patient.patience = 60s;
  const Handle handle = open(target, patient, answer);
  curl_easy_setopt(handle.get(), CURLOPT_UPLOAD, 1L);
  curl_easy_setopt(handle.get(), CURLOPT_READFUNCTION, hand_over);
  curl_easy_setopt(handle.get(), CURLOPT_READDATA, &bytes);
  curl_easy_setopt(handle.get(), CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(bytes.size()));
  const long status = perform(handle, target);
  if (status / 100 != 2)
    refuse_answer(target, fmt::format("PUT was answered with status {}", status));
}

std::string with_signature(const std::string& entry, const std::filesystem::path& private_key) {
  return entry + sign(entry, private_key) + std::string(trailer);
}

} // namespace tilewright::tools
