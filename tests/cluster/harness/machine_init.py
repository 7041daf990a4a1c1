"""Process 1 of a machine: makes the namespaces it was started in look like a freshly booted host, then reaps orphans.

usage: machine_init.py NAME
"""

import os
import signal
import subprocess
import sys


def mount(*words):
    subprocess.run(["mount", *words], check=True)


def main():
    subprocess.run(["hostname", sys.argv[1]], check=True)
    # Nothing mounted in here is seen outside, and everything is among the machine's own programs, as kubelets need it.
    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/log")
    mount("--make-rshared", "/")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print("booted", flush=True)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.pause()
        except InterruptedError:
            pass


main()
