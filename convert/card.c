/* card.c - the metadata of a container: where it comes from, as far as the folder knows.
 *
 * Only what is certain is written: no licence rather than a guessed one, no full path, no time, so
 * the same checkpoint gives the same bytes wherever and whenever it is converted. */
#include "convert/card.h"

#include "core/vaquita.h"

#include <string.h>

/* ---- template ---- */

vq_status cv_chat_template(const cv_ckpt *c, const cv_json *cfg, vq_buf *out, vq_err *e)
{
    static const char file[] = "chat_template.jinja";
    if (c->is_gguf) {
        const vq_str t = cv_gkey_str(cv_gguf_find(&c->gguf, "tokenizer.chat_template"));
        if (t.p) vq_buf_add(out, t.p, t.n);
        return out->oom ? vq_fail(e, VQ_ENOMEM, "%s: out of memory", c->dir) : VQ_OK;
    }
    if (cv_ckpt_has(c, file)) return cv_ckpt_text(c, file, out, e); /* new folders: it wins */
    if (!cfg->there) return VQ_OK;
    const vq_json *j = &cfg->j;
    const uint32_t v = vq_json_get(j, 0, "chat_template");
    vq_str text = vq_json_str(j, v);
    if (vq_json_is(j, v, VQ_JARR)) { /* several by name: "default", else the first */
        for (uint32_t k = vq_json_first(j, v); k; k = vq_json_next(j, v, k)) {
            const bool named = vq_str_eq(vq_json_str(j, vq_json_get(j, k, "name")), "default");
            const uint32_t t = vq_json_get(j, k, "template");
            if (t && (named || !text.p)) text = vq_json_str(j, t);
            if (named) break;
        }
    }
    if (text.p) vq_buf_add(out, text.p, text.n);
    return out->oom ? vq_fail(e, VQ_ENOMEM, "%s: out of memory", cfg->path) : VQ_OK;
}

/* ---- licence ---- */

static vq_str trim(vq_str s)
{
    static const char blanks[] = " \t\r\n\"'";
    while (s.n && strchr(blanks, s.p[0])) s.p++, s.n--;
    while (s.n && strchr(blanks, s.p[s.n - 1])) s.n--;
    return s;
}

/* Takes the first line off *text. */
static bool next_line(vq_str *text, vq_str *line)
{
    if (!text->n) return false;
    const char *end = memchr(text->p, '\n', text->n);
    const size_t n = end ? (size_t)(end - text->p) : text->n;
    *line = trim((vq_str){ text->p, n });
    text->p += end ? n + 1 : n;
    text->n -= end ? n + 1 : n;
    return true;
}

/* "license: mit" between the two "---" at the start of a model card. */
static vq_str licence_of_card(vq_str text)
{
    static const char key[] = "license:";
    const size_t n = sizeof key - 1;
    vq_str line;
    if (!next_line(&text, &line) || !vq_str_eq(line, "---")) return (vq_str){ NULL, 0 };
    while (next_line(&text, &line) && !vq_str_eq(line, "---")) {
        if (line.n > n && !memcmp(line.p, key, n)) {
            return trim((vq_str){ line.p + n, line.n - n });
        }
    }
    return (vq_str){ NULL, 0 };
}

/* The title of a licence text: "MIT License". */
static vq_str title_of(vq_str text)
{
    vq_str line = { NULL, 0 };
    while (next_line(&text, &line) && !line.n) {}
    return line.n && line.n <= 60 ? line : (vq_str){ NULL, 0 };
}

static void add_licence(vq_buf *meta, const cv_ckpt *c)
{
    static const struct { const char *file; bool card; } places[] = {
        { "README.md", true }, { "LICENSE", false }, { "LICENSE.txt", false },
    };
    const vq_str key = cv_gkey_str(cv_gguf_find(&c->gguf, "general.license"));
    if (key.n) vq_meta_add_text(meta, "licence", key.p, key.n);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        vq_buf text = { 0 };
        vq_str s = { NULL, 0 };
        /* A file that cannot be read is one that says nothing. */
        if (cv_ckpt_has(c, places[i].file) && !cv_ckpt_text(c, places[i].file, &text, NULL)) {
            const vq_str all = { text.p ? text.p : "", text.n };
            s = places[i].card ? licence_of_card(all) : title_of(all);
            if (s.n) vq_meta_add_text(meta, "licence", s.p, s.n);
        }
        vq_buf_clear(&text);
        if (s.n) return;
    }
}

/* ---- all of it ---- */

static void add(vq_buf *meta, const char *key, const char *text)
{
    vq_meta_add_text(meta, key, text, strlen(text));
}

/* DeepSeek's own names say what was distilled; nobody else's do. */
static const char *teacher(const char *name)
{
    if (!strncmp(name, "DeepSeek-R1-Distill-", 20)) return "DeepSeek-R1";
    if (!strncmp(name, "DeepSeek-R1-0528-Qwen3-", 23)) return "DeepSeek-R1-0528";
    return NULL;
}

void cv_card(vq_buf *meta, const cv_ckpt *c, const char *name, const char *recipe,
             uint32_t template_id)
{
    char hex[65];
    vq_hex32(hex, c->sha256);
    add(meta, "name", name ? name : c->name);
    if (teacher(c->name)) add(meta, "distill_of", teacher(c->name));
    add_licence(meta, c);
    add(meta, "source", c->name);
    add(meta, "source_sha256", hex);
    add(meta, "recipe", recipe);
    add(meta, "template", vq_template_name(template_id));
    add(meta, "tool", "vaquita " VQ_VERSION);
}
