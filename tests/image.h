/* image.h - a container as bytes in memory, to be damaged on purpose: with all hashes made anew
 * (`reseal`) only the proof of its content stands between the damage and whoever opens it. */
#ifndef TESTS_IMAGE_H
#define TESTS_IMAGE_H

#include "core/base/mem.h"
#include "core/file/file.h"
#include "tests/test.h"

static q_kern kern;             /* the fastest, set by main: every damage costs some hashes */

typedef struct image { uint8_t *p; size_t n; } image; /* 64-aligned */

static inline image image_copy(image a)
{
    image im = { vq_aligned(64, a.n), a.n };
    memcpy(im.p, a.p, a.n);
    return im;
}

static inline vaq_header *header(image im) { return (vaq_header *)(void *)im.p; }
static inline vaq_section *section(image im, uint32_t id)
{
    vaq_section *s = (vaq_section *)(void *)(im.p + sizeof(vaq_header));
    for (uint32_t i = 0; i < header(im)->n_sections; i++) {
        if (s[i].id == id) return &s[i];
    }
    return NULL;
}
static inline void *content(image im, uint32_t id) { return im.p + section(im, id)->off; }
static inline vaq_config *config(image im) { return content(im, VAQ_SEC_CONFIG); }
static inline vaq_tensor *table(image im) { return content(im, VAQ_SEC_TENSORS); }

/* All hashes of the front anew, as far as the directory makes sense. */
static inline void reseal(image im)
{
    vaq_header *h = header(im);
    vaq_section *s = (vaq_section *)(void *)(im.p + sizeof *h);
    vq_sha256 sha;
    if (h->n_sections > VAQ_MAX_SECTIONS) return;
    for (uint32_t i = 0; i < h->n_sections; i++) {
        if (s[i].off > im.n || s[i].size > im.n - s[i].off) continue;
        vq_sha256_init(&sha, &kern);
        vq_sha256_add(&sha, im.p + s[i].off, s[i].size);
        vq_sha256_end(&sha, s[i].sha256);
    }
    memset(h->root, 0, 32);
    vq_sha256_init(&sha, &kern);
    vq_sha256_add(&sha, h, sizeof *h + h->n_sections * sizeof *s);
    uint8_t root[32];
    vq_sha256_end(&sha, root);
    memcpy(h->root, root, 32);
}

/* Uses whatever opened: everything handed out must lie inside. */
static inline unsigned walk(const vq_file *f)
{
    unsigned sum = 0;
    for (uint32_t i = 0; i < f->n_tensor; i++) {
        const vaq_tensor *t = &f->tensor[i];
        char name[96];
        vq_tensor_name(name, t);
        const uint8_t *p = vq_file_data(f, t);
        sum += p[0] + p[t->size - 1] + (unsigned)strlen(name);
    }
    vq_meta m;
    for (size_t pos = 0; vq_file_meta_next(f, &pos, &m);) {
        for (size_t i = 0; i < m.key.n; i++) sum += (uint8_t)m.key.p[i];
        for (size_t i = 0; i < m.text.n; i++) sum += (uint8_t)m.text.p[i];
    }
    for (size_t i = 0; i < f->tokenizer_size; i++) sum += f->tokenizer[i];
    return sum;
}

static unsigned walked; /* printed, so that no compiler skips the walks */

/* Opens an image; on success walks it. */
static inline vq_status try_open(image im, vq_err *e)
{
    vq_file *f;
    vq_status s = vq_file_open_mem(&f, im.p, im.n, "mem.vaq", &kern, e);
    if (!s) walked += walk(f);
    vq_file_close(f);
    return s;
}

/* Expects EFORMAT and `part` in the message for a resealed image. */
#define REFUSED(im, part, ...) \
    do { \
        image c_ = image_copy(im); \
        vq_err e_ = { 0 }; \
        { image im_ = c_; (void)im_; __VA_ARGS__; } \
        reseal(c_); \
        vq_status s_ = try_open(c_, &e_); \
        T_OK(s_ == VQ_EFORMAT && strstr(e_.msg, part), "%d: %s (not: %s)", s_, e_.msg, part); \
        vq_aligned_free(c_.p); \
    } while (0)

static inline void swap(vaq_tensor *a, vaq_tensor *b)
{
    vaq_tensor t = *a;
    *a = *b;
    *b = t;
}

#endif
