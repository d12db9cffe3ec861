/* checkpoint.c - finds the files of a checkpoint and makes one table of all its tensors.
 *
 * People arrive here with half-finished downloads, Git LFS pointers, folders of the wrong kind;
 * each of those has its own line with the way out, because "tensor missing" would send them
 * searching.  The index of a sharded checkpoint is checked against the shards and then forgotten:
 * what a shard's own header says is what counts. */
#include "convert/checkpoint.h"

#include "convert/gguf_model.h"
#include "core/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char INDEX[] = "model.safetensors.index.json";
enum { MAX_JSON = 256 << 20 }; /* the largest in use: a tokenizer.json of 20 MB */

static vq_status no_memory(const char *what, vq_err *e)
{
    return vq_fail(e, VQ_ENOMEM, "%s: out of memory", what);
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);
    return n >= k && !memcmp(s + n - k, end, k);
}

static bool starts_with(const char *s, const char *start)
{
    return !strncmp(s, start, strlen(start));
}

/* ---- small files ---- */

static char *join(const char *dir, const char *file)
{
    vq_buf b = { 0 };
    vq_buf_printf(&b, "%s%s%s", dir, ends_with(dir, "/") ? "" : "/", file);
    if (!b.oom) return b.p;
    vq_buf_clear(&b);
    return NULL;
}

char *cv_ckpt_path(const cv_ckpt *c, const char *file)
{
    return join(c->dir, file);
}

bool cv_ckpt_has(const cv_ckpt *c, const char *file)
{
    char path[4096]; /* no heap: without memory a file would seem not to be there */
    const int n = snprintf(path, sizeof path, "%s/%s", c->dir, file);
    return n > 0 && (size_t)n < sizeof path && vq_is_regular(path);
}

vq_status cv_ckpt_text(const cv_ckpt *c, const char *file, vq_buf *text, vq_err *e)
{
    char *path = join(c->dir, file);
    if (!path) return no_memory(file, e);
    vq_status st = vq_file_read(path, MAX_JSON, text, e);
    if (!st && cv_is_lfs_pointer(text->p, text->n)) st = cv_lfs_fail(path, e);
    vq_free(path);
    return st;
}

vq_status cv_ckpt_json(const cv_ckpt *c, const char *file, cv_json *out, vq_err *e)
{
    *out = (cv_json){ 0 };
    if (!cv_ckpt_has(c, file)) return VQ_OK;
    out->path = join(c->dir, file);
    vq_status st = out->path ? cv_ckpt_text(c, file, &out->text, e) : no_memory(file, e);
    if (!st) st = vq_json_parse(&out->j, out->text.p, out->text.n, out->path, e);
    if (!st && vq_json_type(&out->j, 0) != VQ_JOBJ) {
        st = vq_fail(e, VQ_EFORMAT, "%s: is not a JSON object; download it again", out->path);
    }
    if (st) cv_json_clear(out);
    else out->there = true;
    return st;
}

void cv_json_clear(cv_json *j)
{
    vq_json_clear(&j->j);
    vq_buf_clear(&j->text);
    vq_free(j->path);
    *j = (cv_json){ 0 };
}

/* ---- where the checkpoint is and what it is called ---- */

/* The last part of a path, without slashes behind it. */
static vq_str last_part(const char *path, size_t n)
{
    while (n && path[n - 1] == '/') n--;
    size_t at = n;
    while (at && path[at - 1] != '/') at--;
    return (vq_str){ path + at, n - at };
}

/* The folder's name, so that the same checkpoint gives the same container wherever it lies.  The
 * cache of Hugging Face keeps it in .../models--ORG--NAME/snapshots/REVISION. */
static char *model_name(const char *dir)
{
    char *full = vq_full_path(dir);
    const char *path = full ? full : dir;
    vq_str name = last_part(path, strlen(path));
    const vq_str parent = last_part(path, (size_t)(name.p - path));
    if (vq_str_eq(parent, "snapshots")) {
        const vq_str repo = last_part(path, (size_t)(parent.p - path));
        if (repo.n > 8 && !memcmp(repo.p, "models--", 8)) {
            name = repo;
            for (size_t i = 0; i + 2 < repo.n; i++) {
                if (repo.p[i] == '-' && repo.p[i + 1] == '-') {
                    name = (vq_str){ repo.p + i + 2, repo.n - i - 2 };
                }
            }
        }
    }
    char *s = name.n ? vq_strndup(name.p, name.n) : vq_strndup("model", 5);
    vq_free(full);
    return s;
}

/* NAME-00002-of-00005.gguf: the number of parts, and where "-00002" begins; 0: not so called. */
static unsigned parts_of(const char *path, size_t *at)
{
    unsigned no = 0, count = 0;
    const size_t n = strlen(path), tail = strlen("-00001-of-00001.gguf");
    int used = 0;
    if (n < tail) return 0;
    *at = n - tail;
    if (sscanf(path + *at, "-%5u-of-%5u.gguf%n", &no, &count, &used) != 2) return 0;
    return (size_t)used == tail && no >= 1 && no <= count ? count : 0;
}

/* The file's name without its ending and the number of its part. */
static char *gguf_name(const char *path)
{
    size_t at = 0;
    const vq_str file = last_part(path, strlen(path));
    const size_t end = parts_of(path, &at) ? at : strlen(path) - strlen(".gguf");
    const size_t start = (size_t)(file.p - path);
    return end > start ? vq_strndup(file.p, end - start) : vq_strndup("model", 5);
}

static vq_status find_dir(cv_ckpt *c, const char *src, vq_err *e)
{
    if (vq_is_dir(src)) {
        c->dir = vq_strndup(src, strlen(src));
    } else if (!vq_file_exists(src)) {
        return vq_fail(e, VQ_EFAIL, "%s: there is no such file or folder", src);
    } else if (ends_with(src, ".gguf")) {
        c->is_gguf = true;
        c->dir = vq_strndup(src, strlen(src));
    } else if (ends_with(src, ".vaq")) {
        return vq_fail(e, VQ_EFORMAT, "%s: is a container already; give the checkpoint it was made "
                       "from",
                       src);
    } else if (!ends_with(src, ".safetensors")) {
        return vq_fail(e, VQ_EFORMAT, "%s: is neither a checkpoint folder nor a .safetensors or "
                       ".gguf file",
                       src);
    } else {
        const vq_str file = last_part(src, strlen(src));
        c->dir = file.p == src ? vq_strndup(".", 1) : vq_strndup(src, (size_t)(file.p - src));
    }
    if (!c->dir) return no_memory(src, e);
    c->name = c->is_gguf ? gguf_name(c->dir) : model_name(c->dir);
    return c->name ? VQ_OK : no_memory(src, e);
}

/* ---- which files hold the tensors ---- */

typedef struct names {
    char **v;               /* (n), sorted, without folder */
    size_t n, cap;
} names;

static void names_clear(names *l)
{
    for (size_t i = 0; i < l->n; i++) vq_free(l->v[i]);
    vq_free(l->v);
    *l = (names){ 0 };
}

static bool names_add(names *l, const char *p, size_t n)
{
    char *s = vq_strndup(p, n);
    if (!s || vq_grow(&l->v, &l->cap, l->n + 1, sizeof *l->v)) {
        vq_free(s);
        return false;
    }
    l->v[l->n++] = s;
    return true;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The files an index names, each once.  They must lie in the folder itself. */
static vq_status files_of_index(const cv_json *index, names *out, vq_err *e)
{
    const vq_json *j = &index->j;
    const uint32_t map = vq_json_get(j, 0, "weight_map");
    vq_str last = { NULL, 0 };
    if (!vq_json_is(j, map, VQ_JOBJ) || !j->node[map].count) {
        return vq_fail(e, VQ_EFORMAT, "%s: has no weight_map; download it again", index->path);
    }
    for (uint32_t k = vq_json_first(j, map); k; k = vq_json_next(j, map, k + 1)) {
        const vq_str s = vq_json_str(j, k + 1);
        if (last.p && s.p && !vq_str_cmp(s, last)) continue; /* most follow one of the same file */
        last = s;
        if (!s.p || !s.n || memchr(s.p, '/', s.n) || memchr(s.p, 0, s.n) || s.p[0] == '.') {
            return vq_fail(e, VQ_EFORMAT, "%s: \"%.*s\" is no file name", index->path,
                           s.n > 80 ? 80 : (int)s.n, s.p ? s.p : "");
        }
        if (!names_add(out, s.p, s.n)) return no_memory(index->path, e);
    }
    if (out->n) qsort(out->v, out->n, sizeof *out->v, by_text);
    size_t n = 0;
    for (size_t i = 0; i < out->n; i++) {
        if (n && !strcmp(out->v[n - 1], out->v[i])) vq_free(out->v[i]);
        else out->v[n++] = out->v[i];
    }
    out->n = n;
    return VQ_OK;
}

/* No model.safetensors and no index: says what the folder holds instead. */
static vq_status no_tensors(const cv_ckpt *c, const names *dir, vq_err *e)
{
    const char *bin = NULL, *gguf = NULL, *shard = NULL;
    for (size_t i = 0; i < dir->n; i++) {
        const char *s = dir->v[i];
        if (starts_with(s, "pytorch_model") && ends_with(s, ".bin")) bin = s;
        if (ends_with(s, ".gguf")) gguf = s;
        if (ends_with(s, ".safetensors")) shard = s;
    }
    if (shard) {
        return vq_fail(e, VQ_EFAIL, "%s: has %s and others, but no %s that says what belongs "
                       "together; download that too",
                       c->dir, shard, INDEX);
    }
    if (bin) {
        return vq_fail(e, VQ_EFORMAT, "%s: has only PyTorch files (%s); download the safetensors "
                       "of this model, or save it with save_pretrained(safe_serialization=True)",
                       c->dir, bin);
    }
    if (gguf) {
        return vq_fail(e, VQ_EFORMAT, "%s: has only GGUF; give one such file by name, for instance "
                       "%s/%s",
                       c->dir, c->dir, gguf);
    }
    return vq_fail(e, VQ_EFAIL, "%s: has no model.safetensors; is it the folder of a Hugging Face "
                   "checkpoint?",
                   c->dir);
}

static vq_status files_of_dir(const cv_ckpt *c, names *out, vq_err *e)
{
    names dir = { 0 };
    vq_status st = vq_dir_list(c->dir, &dir.v, &dir.n, e);
    if (st) return st;
    const char *only = NULL;
    size_t n = 0;
    for (size_t i = 0; i < dir.n; i++) {
        if (!ends_with(dir.v[i], ".safetensors")) continue;
        only = dir.v[i];
        n++;
    }
    if (cv_ckpt_has(c, "model.safetensors")) only = "model.safetensors";
    else if (n != 1) only = NULL;
    if (!only) st = no_tensors(c, &dir, e);
    else if (!names_add(out, only, strlen(only))) st = no_memory(c->dir, e);
    names_clear(&dir);
    return st;
}

/* ---- the table ---- */

vq_str cv_canonical(vq_str name)
{
    static const char prefix[] = "model.";
    const size_t n = sizeof prefix - 1;
    if (name.n > n && !memcmp(name.p, prefix, n)) return (vq_str){ name.p + n, name.n - n };
    return name;
}

static int by_canonical(const void *a, const void *b)
{
    return vq_str_cmp(cv_canonical(((const cv_tensor *)a)->name),
                      cv_canonical(((const cv_tensor *)b)->name));
}

static const cv_tensor *find(const cv_ckpt *c, vq_str canonical)
{
    size_t lo = 0, hi = c->n_tensor;
    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        const int cmp = vq_str_cmp(canonical, cv_canonical(c->tensor[mid].name));
        if (!cmp) return &c->tensor[mid];
        if (cmp < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

const cv_tensor *cv_ckpt_find(const cv_ckpt *c, const char *canonical)
{
    return find(c, vq_str_c(canonical));
}

vq_str cv_ckpt_meta(const cv_ckpt *c, const char *key)
{
    vq_str found = { NULL, 0 };
    for (size_t i = 0; i < c->n_shard; i++) {
        for (size_t k = 0; k < c->shard[i].n_meta; k++) {
            const cv_pair *p = &c->shard[i].meta[k];
            if (vq_str_eq(p->key, key)) found = p->value;
        }
    }
    return found;
}

static vq_status make_table(cv_ckpt *c, vq_err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_shard; i++) n += c->shard[i].n_tensor;
    c->tensor = vq_calloc(n + 1, sizeof *c->tensor);
    if (!c->tensor) return no_memory(c->dir, e);
    for (size_t i = 0; i < c->n_shard; i++) {
        const cv_st *s = &c->shard[i];
        for (size_t k = 0; k < s->n_tensor; k++) c->tensor[c->n_tensor++] = s->tensor[k];
    }
    qsort(c->tensor, n, sizeof *c->tensor, by_canonical);
    for (size_t i = 1; i < n; i++) {
        const cv_tensor *a = &c->tensor[i - 1], *b = &c->tensor[i];
        if (by_canonical(a, b)) continue;
        return vq_fail(e, VQ_EFORMAT, "%s: tensor %.*s is also in %s (as %.*s); only one of them "
                       "can be meant",
                       b->file->path, (int)b->own.n, b->own.p, a->file->path, (int)a->own.n,
                       a->own.p);
    }
    return VQ_OK;
}

static vq_str file_of(const cv_tensor *t)
{
    return last_part(t->file->path, strlen(t->file->path));
}

/* Everything the index promises is where it says. */
static vq_status check_index(const cv_ckpt *c, const cv_json *index, vq_err *e)
{
    const vq_json *j = &index->j;
    const uint32_t map = vq_json_get(j, 0, "weight_map");
    for (uint32_t k = vq_json_first(j, map); k; k = vq_json_next(j, map, k + 1)) {
        const vq_str name = vq_json_str(j, k), file = vq_json_str(j, k + 1);
        const cv_tensor *t = find(c, cv_canonical(name));
        if (t && !vq_str_cmp(file_of(t), file)) continue;
        return vq_fail(e, VQ_EFORMAT, "%s: tensor %.*s should be in %.*s and is not; download both "
                       "again",
                       index->path, (int)name.n, name.p, (int)file.n, file.p);
    }
    return VQ_OK;
}

static vq_status open_shards(cv_ckpt *c, const names *files, bool of_index, vq_sha256 *sha,
                             vq_err *e)
{
    c->shard = vq_calloc(files->n, sizeof *c->shard);
    if (!c->shard) return no_memory(c->dir, e);
    for (size_t i = 0; i < files->n; i++) {
        if (of_index && !cv_ckpt_has(c, files->v[i])) {
            return vq_fail(e, VQ_EFAIL, "%s: %s is missing (%s names %zu files); download it",
                           c->dir, files->v[i], INDEX, files->n);
        }
        char *path = join(c->dir, files->v[i]);
        vq_status st = path ? cv_st_open(&c->shard[i], path, sha, e) : no_memory(c->dir, e);
        vq_free(path);
        if (st) return st;
        c->n_shard++;
    }
    return make_table(c, e);
}

/* ---- GGUF ---- */

static vq_status check_part(const cv_gguf *g, const cv_st *s, size_t i, size_t n, vq_err *e)
{
    uint64_t no = 0, count = 1;
    const cv_gkey *k = cv_gguf_find(g, "split.count");
    if (k) cv_gkey_u64(k, 0, &count);
    cv_gkey_u64(cv_gguf_find(g, "split.no"), 0, &no);
    if (count == n && no == i) return VQ_OK;
    return vq_fail(e, VQ_EFORMAT, "%s: says it is part %llu of %llu, its name says %zu of %zu; "
                   "give the parts the names they were made with",
                   s->path, (unsigned long long)no + 1, (unsigned long long)count, i + 1, n);
}

/* One file, or all NAME-0000i-of-0000N.gguf that belong to it. */
static vq_status open_gguf(cv_ckpt *c, const char *src, vq_sha256 *sha, vq_err *e)
{
    size_t at = 0;
    const unsigned parts = parts_of(src, &at);
    const size_t n = parts ? parts : 1;
    c->shard = vq_calloc(n, sizeof *c->shard);
    if (!c->shard) return no_memory(src, e);
    vq_status st = VQ_OK;
    for (size_t i = 0; i < n && !st; i++) {
        vq_buf path = { 0 };
        cv_gguf g;
        if (parts) vq_buf_printf(&path, "%.*s-%05zu-of-%05zu.gguf", (int)at, src, i + 1, n);
        else vq_buf_str(&path, src);
        cv_st *s = &c->shard[i];
        st = path.oom ? no_memory(src, e) : cv_gguf_open(&g, s, path.p, sha, e);
        vq_buf_clear(&path);
        if (st) break;
        c->n_shard++;
        if (i == 0) c->gguf = g;
        st = check_part(&g, s, i, n, e);
        if (!st) st = cv_gguf_rename(s, &c->gguf, e);
        if (i) cv_gguf_close(&g);
    }
    return st ? st : make_table(c, e);
}

static vq_status make_config(cv_ckpt *c, vq_err *e)
{
    cv_json *j = &c->config;
    j->path = vq_strndup(c->dir, strlen(c->dir));
    if (!j->path) return no_memory(c->dir, e);
    vq_status st = cv_gguf_config(&j->text, &c->gguf, c->shard, c->n_shard, e);
    if (!st) st = vq_json_parse(&j->j, j->text.p, j->text.n, j->path, e);
    j->there = st == VQ_OK;
    return st;
}

/* ---- the whole ---- */

static vq_status open_tensors(cv_ckpt *c, const char *src, vq_sha256 *sha, vq_err *e)
{
    cv_json index = { 0 };
    names files = { 0 };
    vq_status st = VQ_OK;
    if (!vq_is_dir(src)) {
        const vq_str file = last_part(src, strlen(src));
        if (!names_add(&files, file.p, file.n)) st = no_memory(src, e);
    } else {
        /* A single file beats an index, as in transformers. */
        if (!cv_ckpt_has(c, "model.safetensors")) st = cv_ckpt_json(c, INDEX, &index, e);
        if (!st) st = index.there ? files_of_index(&index, &files, e) : files_of_dir(c, &files, e);
    }
    if (!st) st = open_shards(c, &files, index.there, sha, e);
    if (!st && index.there) st = check_index(c, &index, e);
    names_clear(&files);
    cv_json_clear(&index);
    return st;
}

static vq_status open_config(cv_ckpt *c, vq_sha256 *sha, vq_err *e)
{
    vq_status st = cv_ckpt_json(c, "config.json", &c->config, e);
    if (!st && !c->config.there) {
        st = vq_fail(e, VQ_EFAIL, "%s: config.json is missing; download it into this folder",
                     c->dir);
    }
    if (!st) vq_sha256_add(sha, c->config.text.p, c->config.text.n);
    return st;
}

vq_status cv_ckpt_open(cv_ckpt *c, const char *src, vq_err *e)
{
    vq_sha256 sha;
    *c = (cv_ckpt){ 0 };
    vq_sha256_init(&sha, NULL);
    vq_status st = find_dir(c, src, e);
    if (!st && c->is_gguf) {
        st = open_gguf(c, src, &sha, e);
        if (!st) st = make_config(c, e);
    } else if (!st) {
        st = open_tensors(c, src, &sha, e);
        if (!st) st = open_config(c, &sha, e);
    }
    vq_sha256_end(&sha, c->sha256);
    if (st) cv_ckpt_close(c);
    return st;
}

void cv_ckpt_stamp(const cv_ckpt *c, uint8_t out[32])
{
    vq_sha256 sha;
    vq_sha256_init(&sha, NULL);
    for (size_t i = 0; i < c->n_shard; i++) {
        const vq_stamp t = vq_fd_stamp(c->shard[i].fd);
        vq_sha256_add(&sha, &t.size, sizeof t.size);
        vq_sha256_add(&sha, &t.time, sizeof t.time);
    }
    vq_sha256_end(&sha, out);
}

void cv_ckpt_close(cv_ckpt *c)
{
    cv_gguf_close(&c->gguf);
    for (size_t i = 0; i < c->n_shard; i++) cv_st_close(&c->shard[i]);
    vq_free(c->shard);
    vq_free(c->tensor);
    vq_free(c->dir);
    vq_free(c->name);
    cv_json_clear(&c->config);
    *c = (cv_ckpt){ 0 };
}
