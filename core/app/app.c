/* app.c - stdout, stderr, progress and input for the verbs (app.h).
 *
 * stdout is written through stdio with its own buffer; the first failure is kept in the app and
 * nothing is written after it, so a reader that went away cannot cause a second message. */
#include "core/app/app.h"

#include "core/app/term.h"
#include "core/base/os.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool app_put(app *a, const void *p, size_t n)
{
    if (a->out_errno) return false;
    errno = 0;
    if (fwrite(p, 1, n, stdout) != n) a->out_errno = errno ? errno : EIO;
    return !a->out_errno;
}

bool app_puts(app *a, const char *s) { return app_put(a, s, strlen(s)); }

bool app_flush(app *a)
{
    if (a->out_errno) return false;
    errno = 0;
    if (fflush(stdout)) a->out_errno = errno ? errno : EIO;
    return !a->out_errno;
}

vq_status app_put_json(app *a, const vq_buf *b, vq_err *e)
{
    if (b->oom) return vq_fail(e, VQ_ENOMEM, "out of memory for the output");
    app_put(a, b->p, b->n);
    app_puts(a, "\n");
    app_flush(a);
    return VQ_OK;
}

void app_note(const app *a, const char *fmt, ...)
{
    if (a->quiet) return;
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

/* ---- progress ---- */

void app_progress_begin(app_progress *p, const app *a, const char *what, const char *unit,
                        double delay)
{
    *p = (app_progress){ .a = a, .what = what, .unit = unit, .start = vq_now(), .delay = delay };
    p->last = p->start;
}

static void span(char out[32], double s) /* "1:02:03", "2:03" */
{
    const int t = s < 0 ? 0 : s > 359999 ? 359999 : (int)(s + 0.5);
    if (t >= 3600) snprintf(out, 32, "%d:%02d:%02d", t / 3600, t / 60 % 60, t % 60);
    else snprintf(out, 32, "%d:%02d", t / 60, t % 60);
}

static void draw(app_progress *p, uint64_t done, uint64_t total, double now)
{
    const double share = total ? (double)done / (double)total : 0;
    const double rate = (double)(done - p->from) / (now - p->start);
    char left[32], amount[80], bar[21];
    span(left, rate > 0 ? (double)(total - done) / rate : 0);
    if (p->unit) {
        snprintf(amount, sizeof amount, "%llu of %llu %s, %.0f/s", (unsigned long long)done,
                 (unsigned long long)total, p->unit, rate);
    } else {
        char d[16], t[16];
        vq_fmt_size(d, done);
        vq_fmt_size(t, total);
        snprintf(amount, sizeof amount, "%s of %s, %.0f MB/s", d, t, rate / 1e6);
    }
    for (int i = 0; i < 20; i++) bar[i] = i < (int)(share * 20) ? '#' : '.';
    bar[20] = 0;
    char line[200];
    snprintf(line, sizeof line, "%s %s %3d%%  %s, %s left", p->what, bar, (int)(share * 100),
             amount, left);
    const int width = vq_term_width();
    if (width > 1 && strlen(line) >= (size_t)width) line[width - 1 < 199 ? width - 1 : 199] = 0;
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
    p->drawn = true;
}

bool app_progress_step(void *ctx, uint64_t done, uint64_t total)
{
    app_progress *p = ctx;
    if (term_interrupted()) return true;
    if (done < p->at || p->total != total) { /* another stretch of work begins */
        p->start = p->last = vq_now();
        p->from = done;
        p->total = total;
    }
    p->at = done;
    if (p->a->quiet || !p->a->tty_err || done > total) return false;
    const double now = vq_now();
    if (now - p->last < 0.1 || now - p->start < p->delay) return false;
    p->last = now;
    draw(p, done, total, now);
    return false;
}

void app_progress_stage(void *ctx, const char *what, const char *unit)
{
    app_progress *p = ctx;
    p->what = what;
    p->unit = unit;
    p->at = UINT64_MAX; /* whatever comes next begins anew */
}

void app_progress_end(app_progress *p)
{
    if (p->drawn) fputs("\r\033[K", stderr);
    p->drawn = false;
}

void app_progress_note(void *ctx, const char *line)
{
    app_progress *p = ctx;
    app_progress_end(p);
    app_note(p->a, "%s", line);
}

/* ---- input ---- */

vq_status app_read(const char *path, vq_buf *out, vq_err *e)
{
    return vq_file_read(path, (uint64_t)1 << 30, out, e);
}

vq_status app_model_path(const char *path, vq_err *e)
{
    if (!vq_is_dir(path)) return VQ_OK;
    return vq_fail(e, VQ_EFORMAT,
                   "%s: a folder, not a .vaq file; make one with: vaquita convert %s -o MODEL.vaq",
                   path, path);
}

vq_status app_parse_ids(const char *s, const char *what, vq_ids *out, vq_err *e)
{
    if (vq_parse_ids(s, out)) return VQ_OK;
    return vq_fail(e, VQ_EUSAGE, "%s takes token ids such as 1,2,3, not '%.60s'", what, s);
}
