// OpenSSL 3, and those of its calls that are macros and so cannot be imported. No logic lives here.
#ifndef APUS_COPENSSL_H
#define APUS_COPENSSL_H

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/ocsp.h>
#include <openssl/rand.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

static const uint64_t apus_ssl_op_no_renegotiation = SSL_OP_NO_RENEGOTIATION;
static const uint64_t apus_ssl_op_no_ticket = SSL_OP_NO_TICKET;
static const uint64_t apus_ssl_op_no_compression = SSL_OP_NO_COMPRESSION;
static const uint64_t apus_ssl_op_cipher_server_preference = SSL_OP_CIPHER_SERVER_PREFERENCE;
static const uint64_t apus_ssl_op_prioritize_chacha = SSL_OP_PRIORITIZE_CHACHA;

static inline int apus_err_reason(unsigned long code) { return ERR_GET_REASON(code); }
static inline long apus_ssl_ctx_set_mode(SSL_CTX *ctx, long mode) { return SSL_CTX_set_mode(ctx, mode); }
static inline long apus_ssl_ctx_set_read_ahead(SSL_CTX *ctx, int on) { return SSL_CTX_set_read_ahead(ctx, on); }
static inline long apus_ssl_ctx_set_min_version(SSL_CTX *ctx, int version) { return SSL_CTX_set_min_proto_version(ctx, version); }
static inline long apus_ssl_ctx_set_session_cache_mode(SSL_CTX *ctx, long mode) { return SSL_CTX_set_session_cache_mode(ctx, mode); }
static inline long apus_ssl_ctx_set_groups(SSL_CTX *ctx, const char *list) { return SSL_CTX_set1_groups_list(ctx, list); }
static inline long apus_ssl_ctx_add1_chain_cert(SSL_CTX *ctx, X509 *certificate) { return SSL_CTX_add1_chain_cert(ctx, certificate); }

// Calls `found` with each DNS name of a certificate, which has no end: its length is given.
static inline void apus_x509_each_name(X509 *certificate, void (*found)(const unsigned char *, int, void *), void *argument) {
    GENERAL_NAMES *names = (GENERAL_NAMES *)X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type == GEN_DNS) found(ASN1_STRING_get0_data(name->d.dNSName), ASN1_STRING_length(name->d.dNSName), argument);
    }
    GENERAL_NAMES_free(names);
}

static inline void apus_ssl_ctx_set_servername_callback(SSL_CTX *ctx, int (*callback)(SSL *, int *, void *), void *argument) {
    SSL_CTX_set_tlsext_servername_callback(ctx, callback);
    SSL_CTX_set_tlsext_servername_arg(ctx, argument);
}

static inline void apus_ssl_ctx_set_status_callback(SSL_CTX *ctx, int (*callback)(SSL *, void *), void *argument) {
    SSL_CTX_set_tlsext_status_cb(ctx, callback);
    SSL_CTX_set_tlsext_status_arg(ctx, argument);
}

static inline long apus_ssl_set_status_response(SSL *ssl, unsigned char *response, long length) {
    return SSL_set_tlsext_status_ocsp_resp(ssl, response, length);
}

// The argument of `callback` cannot be set: it finds its context with SSL_CTX_get_ex_data.
static inline void apus_ssl_ctx_set_ticket_callback(
    SSL_CTX *ctx, int (*callback)(SSL *, unsigned char *, unsigned char *, EVP_CIPHER_CTX *, EVP_MAC_CTX *, int)) {
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, callback);
}

static inline int apus_mac_set_hmac_sha256_key(EVP_MAC_CTX *mac, unsigned char *key, size_t length) {
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key, length),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, parameters);
}

// HKDF-Expand-Label of RFC 8446 §7.1 with an empty context.
static inline int apus_expand_label(
    EVP_KDF *kdf, const char *digest, const char *label, const unsigned char *secret, size_t secret_length, unsigned char *output,
    size_t length) {
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)secret, secret_length),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, (void *)"tls13 ", 6),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (void *)label, strlen(label)),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(kdf);
    int result = EVP_KDF_derive(context, output, length, parameters);
    EVP_KDF_CTX_free(context);
    return result;
}

// The tag of an authenticated cipher, to be set or to be taken, in `tag`.
static inline OSSL_PARAM apus_tag_parameter(void *tag, size_t length) {
    return OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, length);
}

// The whole vector of an AES-GCM cipher whose key is set: what -1 means to
// EVP_CTRL_AEAD_SET_IV_FIXED.
static inline OSSL_PARAM apus_vector_parameter(void *vector) {
    return OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, vector, (size_t)-1);
}

static inline void apus_ssl_ctx_set_app_data(SSL_CTX *ctx, void *data) { SSL_CTX_set_app_data(ctx, data); }
static inline void *apus_ssl_ctx_app_data(const SSL_CTX *ctx) { return SSL_CTX_get_app_data(ctx); }
static inline void apus_ssl_set_app_data(SSL *ssl, void *data) { SSL_set_app_data(ssl, data); }
static inline void *apus_ssl_app_data(const SSL *ssl) { return SSL_get_app_data(ssl); }
static inline long apus_ssl_set_server_name(SSL *ssl, const char *name) { return SSL_set_tlsext_host_name(ssl, name); }
static inline const char *apus_ssl_cipher(const SSL *ssl) { return SSL_get_cipher_name(ssl); }

static inline void apus_bio_set_retry_read(BIO *bio) { BIO_set_retry_read(bio); }
static inline void apus_bio_clear_retry(BIO *bio) { BIO_clear_retry_flags(bio); }
static inline long apus_bio_pending(BIO *bio) { return BIO_pending(bio); }

// The name as RFC 2253 writes it, in UTF-8.
static inline int apus_print_name(BIO *bio, const X509_NAME *name) {
    return X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
}

#endif
