#!/usr/bin/env python3
"""Runs a command, presses Ctrl-C as soon as a file is there; exits with the command's code.

usage: interrupt.py FILE COMMAND...

A shell cannot: what it starts in the background ignores SIGINT.
"""
import os
import signal
import subprocess
import sys
import time

p = subprocess.Popen(sys.argv[2:])
while p.poll() is None and not os.path.exists(sys.argv[1]):
    time.sleep(0.001)
p.send_signal(signal.SIGINT)
sys.exit(p.wait())
