#include "signature.hpp"

#include <array>
#include <memory>

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

struct FreeOpenSsl {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Key = std::unique_ptr<EVP_PKEY, FreeOpenSsl>;
using Context = std::unique_ptr<EVP_MD_CTX, FreeOpenSsl>;

const unsigned char* data_of(std::string_view bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); }

template <typename Read> Key read_key(const std::filesystem::path& path, const char* kind, Read read) {
  const std::string text = support::read_file(path);
  const std::unique_ptr<BIO, FreeOpenSsl> bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  Key key(read(bio.get()));
  if (!key || EVP_PKEY_id(key.get()) != EVP_PKEY_ED25519)
    throw Error(ErrorCode::invalid_argument, fmt::format("{} is no {} Ed25519 key", path.string(), kind),
                "a key in PEM, without a passphrase, is allowed",
                "make one: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out "
                "key.pub");
  return key;
}

[[noreturn]] void openssl_failed(const char* call) {
  throw Error(ErrorCode::internal, fmt::format("{} of OpenSSL failed", call), "OpenSSL 3 with Ed25519 is needed",
              "see whether a policy of this machine forbids Ed25519");
}

} // namespace

std::string sha256(std::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr) != 1)
    openssl_failed("EVP_Digest");
  std::string text;
  for (unsigned index = 0; index < length; ++index)
    text += fmt::format("{:02x}", digest[index]);
  return text;
}

std::string sign(std::string_view bytes, const std::filesystem::path& key_path) {
  const Key key =
      read_key(key_path, "private", [](BIO* bio) { return PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr); });
  const Context context(EVP_MD_CTX_new());
  std::string signature(signature_bytes, '\0');
  std::size_t length = signature.size();
  if (EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &length, data_of(bytes),
                     bytes.size()) != 1 ||
      length != signature_bytes)
    openssl_failed("EVP_DigestSign");
  return signature;
}

bool is_signed(std::string_view bytes, std::string_view signature, const std::filesystem::path& public_key) {
  const Key key =
      read_key(public_key, "public", [](BIO* bio) { return PEM_read_bio_PUBKEY(bio, nullptr, nullptr, nullptr); });
  const Context context(EVP_MD_CTX_new());
  if (EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1)
    openssl_failed("EVP_DigestVerifyInit");
  return signature.size() == signature_bytes &&
         EVP_DigestVerify(context.get(), data_of(signature), signature.size(), data_of(bytes), bytes.size()) == 1;
}

} // namespace tilewright::tools
