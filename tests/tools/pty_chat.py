#!/usr/bin/env python3
"""Types into `vaquita chat` on a pseudo-terminal: editing, history, Ctrl-C, dimmed thoughts, leaving.

usage: pty_chat.py VAQUITA chat MODEL [options]
"""
import os
import pty
import select
import signal
import sys
import tempfile
import time

READY = b"> \r\x1b[2C"        # the prompt before an empty line


class Terminal:
    def __init__(self, argv):
        self.home = tempfile.mkdtemp()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(HOME=self.home, TERM="xterm")
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execvp(argv[0], argv)
        self.shown = b""

    def until(self, text, seconds=30):
        """What is shown up to and with text; the rest stays for the next call."""
        end = time.time() + seconds
        while text not in self.shown:
            left = end - time.time()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                sys.exit(f"waited for {text!r}, got {self.shown[-500:]!r}")
            try:
                part = os.read(self.fd, 4096)
            except OSError:
                part = b""
            if not part:
                sys.exit(f"ended while waiting for {text!r}, got {self.shown[-500:]!r}")
            self.shown += part
        at = self.shown.index(text) + len(text)
        got, self.shown = self.shown[:at], self.shown[at:]
        return got

    def type(self, keys):
        os.write(self.fd, keys)

    def end(self):
        try:
            while os.read(self.fd, 4096):
                pass
        except OSError:
            pass
        _, status = os.waitpid(self.pid, 0)
        if not os.WIFEXITED(status):
            sys.exit(f"died of signal {os.WTERMSIG(status)}")
        return os.WEXITSTATUS(status)


def expect(ok, what):
    if not ok:
        sys.exit("failed: " + what)


def main():
    t = Terminal(sys.argv[1:])
    t.until(READY)
    t.type(b"/hlep\x1b[D\x1b[D\x7f\x1b[Cl\r")                  # edited into /help
    t.until(b"forget the conversation")
    t.until(READY)
    t.type(b"Compute 646 + 683.\r")
    shown = t.until(b"\x1b[0m")
    expect(b"\x1b[2m" in shown, "thoughts are dimmed")
    t.until(b"boxed{1329}")
    t.until(READY)
    t.type(b"\x1b[A")                                            # the question again
    t.until(b"Compute 646 + 683.")
    t.type(b"\x15/think hide\r")
    t.until(READY)
    t.type(b"\x1b[A\x1b[A\r")
    shown = t.until(b"boxed{1329}")
    expect(b"\x1b[2m" not in shown, "hidden thoughts are not shown")
    t.until(READY)
    t.type(b"\x03")                                              # Ctrl-C on an empty line
    t.until(b"Ctrl-D")
    t.until(READY)
    t.type(b"\x1b[200~/clear\x1b[201~\r")                        # pasted
    t.until(b"new conversation")
    t.until(READY)
    t.type(b"\x04")
    code = t.end()
    expect(code == 0, f"exit {code}")
    with open(os.path.join(t.home, ".vaquita_history")) as f:
        expect("Compute 646 + 683.\n" in f.read(), "history is kept")
    print("ok")


if __name__ == "__main__":
    main()
