/* tok_recognise.c - which family a tokenizer.json belongs to, or what in it is foreign.
 *
 * A tokenizer is a pipeline of parts that Hugging Face writes down by name; we accept exactly the
 * pipelines whose every part we reproduce to the byte, and name the first one we do not. */
#include "core/text/tok_recognise.h"

#include <string.h>

/* Regular expressions as split.c has them, in the spelling canon() makes. */
static const char rx_a1[] = "\\p{N}{1,3}";
static const char rx_a2[] =
    "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+";
static const char rx_a3[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char rx_q[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char rx_l[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* The same expression is found with real CR and LF characters and with \r and \n, with " and \". */
static bool same_rx(vq_str rx, const char *want)
{
    const char *p = rx.p, *end = rx.p + rx.n;
    while (p < end && *want) {
        char esc = *p == '\r' ? 'r' : *p == '\n' ? 'n' : 0;
        if (esc) {
            if (want[0] != '\\' || want[1] != esc) return false;
            want++;
        } else if (*p == '\\' && end - p > 1 && p[1] == '"') {
            p++;
            if (*want != '"') return false;
        } else if (*p != *want) {
            return false;
        }
        p++;
        want++;
    }
    return p == end && !*want;
}

static vq_status foreign(vq_err *e, const char *name, const char *part, vq_str what)
{
    int n = what.n > 60 ? 60 : (int)what.n;
    return vq_fail(
        e, VQ_EFORMAT,
        "%s: tokenizer.json has a %s that vaquita does not know: %.*s; only byte-level BPE of the "
        "DeepSeek, Qwen, Llama 3 and SmolLM families is supported (--no-tokenizer converts for ids "
        "only)",
        name, part, n, what.p ? what.p : "?");
}

/* vq_json_get with "not there" (0, which is also the root) staying not there. */
static uint32_t member(const vq_json *j, uint32_t obj, const char *key)
{
    return obj ? vq_json_get(j, obj, key) : 0;
}

static bool flag_of(const vq_json *j, uint32_t obj, const char *key, bool absent)
{
    bool b;
    return vq_json_bool(j, member(j, obj, key), &b) ? b : absent;
}

static vq_str type_of(const vq_json *j, uint32_t v) { return vq_json_str(j, member(j, v, "type")); }

static bool is_set(const vq_json *j, uint32_t v) /* there, and neither null nor "" */
{
    if (!v || vq_json_is(j, v, VQ_JNULL)) return false;
    return !vq_json_is(j, v, VQ_JSTR) || vq_json_str(j, v).n > 0;
}

static vq_status check_model(const vq_json *j, uint32_t model, const char *name, vq_err *e)
{
    if (!vq_json_is(j, model, VQ_JOBJ)) return foreign(e, name, "model", vq_str_c("none"));
    vq_str type = type_of(j, model);
    if (type.p && !vq_str_eq(type, "BPE")) return foreign(e, name, "model type", type);
    if (!vq_json_is(j, member(j, model, "vocab"), VQ_JOBJ) ||
        !vq_json_is(j, member(j, model, "merges"), VQ_JARR)) {
        return foreign(e, name, "model", vq_str_c("no BPE vocabulary and merges"));
    }
    if (flag_of(j, model, "byte_fallback", false)) {
        return foreign(e, name, "model",
                       vq_str_c("BPE with byte_fallback, as SentencePiece makes"));
    }
    static const char *const keys[] = { "unk_token", "continuing_subword_prefix",
                                        "end_of_word_suffix" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (is_set(j, member(j, model, keys[i])))
            return foreign(e, name, "model setting", vq_str_c(keys[i]));
    }
    double dropout;
    if (vq_json_f64(j, member(j, model, "dropout"), &dropout) && dropout != 0) {
        return foreign(e, name, "model setting", vq_str_c("dropout"));
    }
    return VQ_OK;
}

static vq_status check_normalizer(vq_tok_family *f, const vq_json *j, uint32_t v, const char *name,
                                  vq_err *e)
{
    if (!is_set(j, v)) return VQ_OK;
    vq_str type = type_of(j, v);
    if (vq_str_eq(type, "Sequence")) {
        uint32_t parts = member(j, v, "normalizers");
        if (!parts) return foreign(e, name, "normalizer", vq_str_c("a sequence of nothing"));
        uint32_t list = vq_json_first(j, parts);
        if (!list) return VQ_OK;
        if (vq_json_next(j, parts, list))
            return foreign(e, name, "normalizer", vq_str_c("a sequence of several"));
        type = type_of(j, list);
    }
    if (!vq_str_eq(type, "NFC")) return foreign(e, name, "normalizer", type);
    f->nfc = true;
    return VQ_OK;
}

/* ByteLevel that only maps bytes to letters; use_regex: that also splits by GPT-2's expression. */
static bool is_byte_level(const vq_json *j, uint32_t v, bool use_regex)
{
    return vq_str_eq(type_of(j, v), "ByteLevel") && !flag_of(j, v, "add_prefix_space", true) &&
           flag_of(j, v, "use_regex", true) == use_regex;
}

static bool is_split(const vq_json *j, uint32_t v, const char *rx)
{
    vq_str s = vq_json_str(j, member(j, member(j, v, "pattern"), "Regex"));
    return vq_str_eq(type_of(j, v), "Split") && s.p && same_rx(s, rx) &&
           !flag_of(j, v, "invert", false) &&
           vq_str_eq(vq_json_str(j, member(j, v, "behavior")), "Isolated");
}

static vq_status check_pre(vq_tok_family *f, const vq_json *j, uint32_t v, const char *name,
                           vq_err *e)
{
    uint32_t part[5];
    size_t n = 0;
    if (!is_set(j, v)) return foreign(e, name, "pre-tokenizer", vq_str_c("none"));
    if (!vq_str_eq(type_of(j, v), "Sequence"))
        return foreign(e, name, "pre-tokenizer", type_of(j, v));
    uint32_t list = member(j, v, "pretokenizers");
    for (uint32_t k = list ? vq_json_first(j, list) : 0; k && n < 5; k = vq_json_next(j, list, k))
        part[n++] = k;

    static const char *const deepseek[] = { rx_a1, rx_a2, rx_a3 };
    bool split[3] = { false };
    for (size_t i = 0; n == 4 && i < 3; i++) split[i] = is_split(j, part[i], deepseek[i]);
    if (n == 4 && split[0] && split[1] && split[2] && is_byte_level(j, part[3], false)) {
        f->splitter = VAQ_SPLIT_DEEPSEEK;
    } else if (n == 2 && is_split(j, part[0], rx_q) && is_byte_level(j, part[1], false)) {
        f->splitter = VAQ_SPLIT_QWEN;
    } else if (n == 2 && is_split(j, part[0], rx_l) && is_byte_level(j, part[1], false)) {
        f->splitter = VAQ_SPLIT_LLAMA3;
    } else if (n == 2 && vq_str_eq(type_of(j, part[0]), "Digits") &&
               flag_of(j, part[0], "individual_digits", false) && is_byte_level(j, part[1], true)) {
        f->splitter = VAQ_SPLIT_SMOLLM;
    } else {
        vq_str rx = { NULL, 0 }; /* the best hint: the first expression, else the first type */
        if (n) {
            rx = vq_json_str(j, member(j, member(j, part[0], "pattern"), "Regex"));
            if (!rx.p) rx = type_of(j, part[0]);
        }
        return foreign(e, name, "pre-tokenizer sequence", rx.p ? rx : vq_str_c("empty"));
    }
    return VQ_OK;
}

vq_status vq_tok_recognise(vq_tok_family *f, const vq_json *j, const char *name, vq_err *e)
{
    *f = (vq_tok_family){ .splitter = VAQ_SPLIT_QWEN };
    if (vq_json_type(j, 0) != VQ_JOBJ) return foreign(e, name, "top level", vq_str_c("no object"));
    uint32_t model = vq_json_get(j, 0, "model");
    vq_status s = check_model(j, model, name, e);
    if (!s) s = check_normalizer(f, j, vq_json_get(j, 0, "normalizer"), name, e);
    if (!s) s = check_pre(f, j, vq_json_get(j, 0, "pre_tokenizer"), name, e);
    if (s) return s;
    uint32_t dec = vq_json_get(j, 0, "decoder");
    if (is_set(j, dec) && !vq_str_eq(type_of(j, dec), "ByteLevel"))
        return foreign(e, name, "decoder", type_of(j, dec));
    f->ignore_merges = flag_of(j, model, "ignore_merges", false);
    return VQ_OK;
}

const char *vq_tok_splitter_name(vaq_splitter s)
{
    switch (s) {
    case VAQ_SPLIT_DEEPSEEK: return "deepseek";
    case VAQ_SPLIT_QWEN: return "qwen";
    case VAQ_SPLIT_LLAMA3: return "llama3";
    case VAQ_SPLIT_SMOLLM: return "smollm";
    }
    return "unknown";
}
