"""Runs commands in processes of their own that have imported the packages already, one after the other.

Importing torch and the mm packages takes longer than most of what the end-to-end tests run. Each line on stdin is a
request as JSON: ``words`` (a script and its arguments), ``folder`` to run in, ``log`` for all that it prints and
``limit`` in seconds. Its exit status follows on stdout. What a command itself imports at start is tested elsewhere.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import signal
import sys
import traceback

import omh_mmseg.apis  # noqa: F401  imports the mm packages, too
from omh_mmseg.stack import keep_imports


def child(words: list[str], folder: str, log: str, limit: int) -> None:
    """Become the command; never returns."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(written, 1)
    os.dup2(written, 2)
    signal.alarm(limit)
    os.chdir(folder)
    sys.argv, sys.path[0] = words, os.path.dirname(words[0])
    status = 0
    try:
        runpy.run_path(words[0], run_name='__main__')
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Serve until stdin ends."""
    keep_imports()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == '__main__':
    main()
