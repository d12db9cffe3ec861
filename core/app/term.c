/* term.c - the terminal and signals (term.h).
 *
 * Signal handlers reach nothing but globals, so this file has the only mutable ones of the program;
 * they are lock-free atomics or written before the handler can run.  Invariant: whenever the
 * process is not inside term_raw_enter .. term_raw_leave, or styled, the terminal is as we found
 * it, and a signal that kills or stops us inside puts it back first. */
#define _POSIX_C_SOURCE 200809L
#include "core/app/term.h"

#include "core/base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static atomic_int interrupts, polite, resized, styled, raw;
static _Atomic(vq_engine *) watched;
static atomic_bool guarded;   /* on_death and on_stop are installed */
static struct termios cooked; /* valid while raw */

static const char paste_on[] = "\033[?2004h", paste_off[] = "\033[?2004l", dim_on[] = "\033[2m";

void term_write(const void *p, size_t n)
{
    const char *s = p;
    while (n > 0) {
        const ssize_t w = write(1, s, n);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) return;
        s += w;
        n -= (size_t)w;
    }
}

static void put_back(void) /* async-signal-safe */
{
    if (atomic_exchange(&raw, 0)) {
        tcsetattr(0, TCSADRAIN, &cooked);
        term_write(paste_off, sizeof paste_off - 1);
    }
    if (atomic_exchange(&styled, 0)) term_write("\033[0m\n", 5);
}

static void on_interrupt(int sig)
{
    (void)sig;
    const int saved = errno;
    if (atomic_fetch_add(&interrupts, 1) > 0 || !atomic_load(&polite)) {
        put_back();
        vq_cleanup_now();
        _exit(130);
    }
    vq_engine *eng = atomic_load(&watched);
    if (eng) vq_engine_stop(eng);
    errno = saved;
}

static void on_death(int sig) /* installed with SA_RESETHAND: raise() then kills */
{
    put_back();
    raise(sig);
}

static bool set_raw(void);
static void catch_signal(int sig, void (*fn)(int), int flags);

/* Ctrl-Z while text is dimmed, or a SIGTSTP from elsewhere while keys are read.  Installed with
 * SA_RESETHAND and SA_NODEFER: raise() stops us right here, and this goes on with SIGCONT. */
static void on_stop(int sig)
{
    const int saved = errno;
    const bool was_raw = atomic_load(&raw), was_styled = atomic_load(&styled);
    put_back();
    raise(sig);
    catch_signal(sig, on_stop, (int)(SA_RESETHAND | SA_NODEFER));
    if (was_raw && set_raw()) {
        atomic_store(&raw, 1);
        term_write(paste_on, sizeof paste_on - 1);
        atomic_store(&resized, 1); /* the line is drawn again */
    }
    if (was_styled) {
        atomic_store(&styled, 1);
        term_write(dim_on, sizeof dim_on - 1);
    }
    errno = saved;
}

static void on_resize(int sig)
{
    (void)sig;
    atomic_store(&resized, 1);
}

static void catch_signal(int sig, void (*fn)(int), int flags)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = fn;
    sa.sa_flags = flags;
    sigemptyset(&sa.sa_mask);
    sigaction(sig, &sa, NULL);
}

void term_init(void)
{
    /* A descriptor missing at start would be reused by the first file we open. */
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0) {
            const int got =
                open("/dev/null", fd ? O_RDONLY : O_WRONLY); /* using it stays an error */
            if (got >= 0 && got != fd) close(got);
        }
    }
    catch_signal(SIGPIPE, SIG_IGN, 0);
    catch_signal(SIGXFSZ, SIG_IGN, 0);
    /* A program started with SIGINT ignored (a background job of a script) keeps ignoring it. */
    struct sigaction old;
    if (!sigaction(SIGINT, NULL, &old) && old.sa_handler == SIG_IGN) return;
    catch_signal(SIGINT, on_interrupt, 0);
}

void term_polite(bool on) { atomic_store(&polite, on); }

void term_watch(vq_engine *eng)
{
    atomic_store(&watched, eng);
    term_polite(eng != NULL);
}

bool term_interrupted(void) { return atomic_load(&interrupts) > 0; }
void term_clear_interrupt(void) { atomic_store(&interrupts, 0); }

/* From the first change of the terminal on.  What is ignored (trap '' HUP) stays ignored. */
static void guard(void)
{
    static const int deaths[] = { SIGTERM, SIGHUP, SIGQUIT };
    struct sigaction old;
    if (atomic_exchange(&guarded, true)) return;
    for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++) {
        if (!sigaction(deaths[i], NULL, &old) && old.sa_handler == SIG_DFL) {
            catch_signal(deaths[i], on_death, (int)SA_RESETHAND);
        }
    }
    if (!sigaction(SIGTSTP, NULL, &old) && old.sa_handler == SIG_DFL) {
        catch_signal(SIGTSTP, on_stop, (int)(SA_RESETHAND | SA_NODEFER));
    }
}

void term_styled(bool on)
{
    if (on) guard();
    atomic_store(&styled, on);
}

int term_columns(void)
{
    struct winsize w;
    if (ioctl(1, TIOCGWINSZ, &w) == 0 && w.ws_col > 0) return w.ws_col;
    return 80;
}

static bool set_raw(void)
{
    struct termios t = cooked;
    t.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INPCK | ISTRIP | IXON);
    t.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    return tcsetattr(0, TCSADRAIN, &t) == 0;
}

bool term_raw_enter(void)
{
    if (!isatty(0) || !isatty(1) || tcgetattr(0, &cooked) != 0) return false;
    guard();
    catch_signal(SIGWINCH, on_resize, 0);
    if (!set_raw()) return false;
    atomic_store(&raw, 1);
    term_write(paste_on, sizeof paste_on - 1);
    return true;
}

void term_raw_leave(void) { put_back(); }

void term_suspend(void)
{
    put_back();
    raise(SIGTSTP);
    if (set_raw()) { /* back in the foreground */
        atomic_store(&raw, 1);
        term_write(paste_on, sizeof paste_on - 1);
    }
}

int term_read(void *p, int n, int ms)
{
    for (;;) {
        struct pollfd f = { .fd = 0, .events = POLLIN };
        const int r = poll(&f, 1, ms);
        if (atomic_exchange(&resized, 0)) return 0;
        if (r == 0) return 0;
        if (r < 0 && errno != EINTR) return -1;
        if (r < 0) continue;
        const ssize_t got = read(0, p, (size_t)n);
        if (got > 0) return (int)got;
        if (got == 0 || errno != EINTR) return -1;
    }
}

void term_append_private(const char *path, const void *p, size_t n)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0) return;
    /* One write: lines of two chats at the same time do not mix. */
    const ssize_t done = write(fd, p, n);
    (void)done;
    close(fd);
}
