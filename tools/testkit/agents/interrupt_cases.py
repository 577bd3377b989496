"""Code to interrupt, by kind: what waits, what runs another program, what computes in C.

Each prints BEGUN before it is to be interrupted and `later` if it goes on behind it.
"""

from __future__ import annotations

BEGUN, LATER = "begun to be interrupted", "later"
_SAY = f"print({BEGUN!r}, flush=True)\n"

# Seconds that Python, a query or a child may take; a member of SECOND_STAGE needs the interrupt that is repeated.
AWAITS = {
    "asyncio.sleep": "import asyncio\n%sawait asyncio.sleep(600)",
    "queue.get": "import asyncio\n%sawait asyncio.Queue().get()",
    "event.wait": "import asyncio\n%sawait asyncio.Event().wait()",
    "gather": "import asyncio\n%sawait asyncio.gather(asyncio.sleep(600), asyncio.sleep(601))",
    "TaskGroup": "import asyncio\n%sasync with asyncio.TaskGroup() as g:\n    g.create_task(asyncio.sleep(600))",
    "timeout": "import asyncio\n%sasync with asyncio.timeout(600):\n    await asyncio.sleep(601)",
    "wait_for": "import asyncio\n%sawait asyncio.wait_for(asyncio.sleep(600), 601)",
    "to_thread": "import asyncio, time\n%sawait asyncio.to_thread(time.sleep, 3)",
    "subprocess": ("import asyncio\n%sp = await asyncio.create_subprocess_exec('sleep', '600')\nawait p.wait()"),
    "loop in a coroutine": "import asyncio\n%sawait asyncio.sleep(0)\nwhile True: pass",
    "loop in another task": ("import asyncio\nasync def f():\n    while True: pass\n%sawait asyncio.gather(f())"),
    "async for": (
        "import asyncio\nasync def f():\n    while True:\n        yield 1\n        await asyncio.sleep(0.01)\n"
        "%sasync for _ in f(): pass"
    ),
}
COMMANDS = {
    "!": "%s!sleep 600",
    "! of many": "%s!sleep 600 | cat | cat",
    "! that ignores SIGINT": "%s!trap '' INT; sleep 600",
    "x = !": "%sx = !sleep 600",
    "!!": "%sget_ipython().run_line_magic('sx', 'sleep 600')",
    "%system": "%sget_ipython().run_line_magic('system', 'sleep 600')",
    "%time !": "%sget_ipython().run_line_magic('time', '!sleep 600')",
    "get_ipython().system": "%sget_ipython().system('sleep 600')",
    "get_ipython().getoutput": "%sget_ipython().getoutput('sleep 600')",
    "! in a function": "def f():\n    !sleep 600\n%sf()",
    "! in a loop": "%sfor n in range(600):\n    !sleep 1",
}
SCRIPTS = {
    "%%bash": f"%%bash\necho {BEGUN}\nsleep 600\necho {LATER}",
    "%%sh": f"%%sh\necho {BEGUN}\nsleep 600\necho {LATER}",
    "%%script": f"%%script sh\necho {BEGUN}\nsleep 600\necho {LATER}",
    "%%bash that ignores SIGINT": f"%%bash\ntrap '' INT\necho {BEGUN}\nsleep 600\nsleep 600\necho {LATER}",
    "%%bash loop": f"%%bash\necho {BEGUN}\nwhile true; do sleep 0.1; done\necho {LATER}",
    "%%bash pipe": f"%%bash\necho {BEGUN}\nsleep 600 | cat\necho {LATER}",
    "%%time": f"%%time\nimport time\nprint('{BEGUN}', flush=True)\ntime.sleep(600)\nprint('{LATER}')",
    "%%capture": f"%%capture\nimport time, os\nos.write(1, b'{BEGUN}\\n')\ntime.sleep(600)\nprint('{LATER}')",
    "%%python": f"%%python\nimport time\nprint('{BEGUN}', flush=True)\ntime.sleep(600)\nprint('{LATER}')",
    "%%bash --no-raise-error": f"%%bash --no-raise-error\necho {BEGUN}\nsleep 600\necho {LATER}",
}
CHILDREN = {
    "run": "import subprocess\n%ssubprocess.run(['sleep', '600'])",
    "run in a shell": "import subprocess\n%ssubprocess.run('sleep 600; echo x', shell=True)",
    "check_output": "import subprocess\n%ssubprocess.check_output(['sleep', '600'])",
    "call": "import subprocess\n%ssubprocess.call(['sleep', '600'])",
    "Popen.wait": "import subprocess\n%ssubprocess.Popen(['sleep', '600']).wait()",
    "communicate": "import subprocess\n%ssubprocess.Popen(['sleep', '600'], stdout=-1).communicate()",
    "os.system": "import os\n%sos.system('sleep 600')",
    "os.system that ignores SIGINT": "import os\n%sos.system(\"trap '' INT; sleep 600\")",
    "os.popen": "import os\n%sos.popen('sleep 600').read()",
    "own session": "import subprocess\n%ssubprocess.run(['sleep', '600'], start_new_session=True)",
    "ignores SIGINT": "import subprocess\n%ssubprocess.run(\"trap '' INT; sleep 600\", shell=True)",
    "multiprocessing": (
        "import multiprocessing, time\n%swith multiprocessing.get_context('fork').Pool(2) as p:\n"
        "    p.map(time.sleep, [600, 600])"
    ),
}
_QUERY = "select sum(a.range * b.range) from range(1000000) a, range(1000000) b"
DUCKDB = {
    "sql.fetchall": f"import duckdb\n%sduckdb.sql('{_QUERY}').fetchall()",
    "sql.df": f"import duckdb\n%sduckdb.sql('{_QUERY}').df()",
    "shown": f"import duckdb\n%sdisplay(duckdb.sql('{_QUERY}'))",
    "execute": f"import duckdb\n%sduckdb.execute('{_QUERY}').fetchone()",
    "own connection": f"import duckdb\nc = duckdb.connect()\n%sc.sql('{_QUERY}').fetchall()",
    "in an object": (
        f"import duckdb\nclass S: pass\ns = S(); s.c = duckdb.connect()\n%ss.c.execute('{_QUERY}').fetchall()"
    ),
    "in a function": f"import duckdb\ndef f():\n    return duckdb.connect().execute('{_QUERY}').fetchall()\n%sf()",
    "in a thread": (
        f"import duckdb, threading\nt = threading.Thread(target=lambda: duckdb.connect().execute('{_QUERY}'))\n"
        "%st.start()\nt.join()"
    ),
    "create table": f"import duckdb\n%sduckdb.sql('create or replace table t as {_QUERY}')",
    "sorted": (
        "import duckdb\n%sduckdb.sql('select count(distinct hash(a.range, b.range)) from range(100000) a,"
        " range(100000) b').fetchall()"
    ),
}
WAITS = {
    "time.sleep": "import time\n%stime.sleep(600)",
    "short sleeps": "import time\n%swhile True: time.sleep(0.01)",
    "Lock": "import threading\nl = threading.Lock(); l.acquire()\n%sl.acquire()",
    "Event": "import threading\n%sthreading.Event().wait()",
    "Thread.join": "import threading, time\nt = threading.Thread(target=time.sleep, args=(5,))\n%st.start()\nt.join()",
    "Queue": "import queue\n%squeue.Queue().get()",
    "select": "import select\n%sselect.select([], [], [], 600)",
    "socket": "import socket\na, b = socket.socketpair()\n%sa.recv(1)",
    "pipe": "import os\nr, w = os.pipe()\n%sos.read(r, 1)",
    "signal.pause": "import signal\n%ssignal.pause()",
    "ThreadPoolExecutor": (
        "import concurrent.futures as c, time\n%swith c.ThreadPoolExecutor() as e:\n"
        "    list(e.map(time.sleep, [3] * 2))"
    ),
    "asyncio.run": "import asyncio\n%sasyncio.run(asyncio.sleep(600))",
    "an ignored SIGINT": "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n%stime.sleep(600)",
    "another handler": ("import signal, time\nsignal.signal(signal.SIGINT, lambda *_: None)\n%stime.sleep(600)"),
}
LOOPS = {
    "while": "%swhile True: pass",
    "for": "%sfor n in range(10 ** 12): pass",
    "re": "import re\n%sre.match('(a*)*b', 'a' * 40)",
    "sqlite": (
        "import sqlite3\n%ssqlite3.connect(':memory:').execute('with recursive t(n) as (select 1 union all"
        " select n + 1 from t) select sum(n) from t').fetchall()"
    ),
    "key function": "%ssorted(range(10 ** 6), key=lambda n: sum(range(1000)))",
    "generator": "%ssum(n for n in range(10 ** 12))",
    "map": "%sany(map(lambda n: False, range(10 ** 12)))",
    "ctypes": "import ctypes\n%sctypes.CDLL(None).sleep(600)",
    "usleep in C": "import ctypes\n%sfor n in range(600): ctypes.CDLL(None).usleep(200000)",
    "numpy": "import numpy\na = numpy.random.rand(700, 700)\n%swhile True: a @ a",
    "pandas": "import pandas\n%spandas.Series(range(10 ** 7)).apply(lambda n: n + 1)",
    "hashing": "import hashlib\n%swhile True: hashlib.sha256(bytes(1 << 24)).digest()",
}
KINDS = {
    "await": AWAITS, "!command": COMMANDS, "%%script": SCRIPTS, "child process": CHILDREN, "duckdb": DUCKDB,
    "wait": WAITS, "C and Python loop": LOOPS,
}  # fmt: skip


def cases() -> list[tuple[str, str, str]]:
    """(kind, name, code) of each."""
    return [(kind, name, _code(code)) for kind, members in KINDS.items() for name, code in members.items()]


def _code(code: str) -> str:
    return code if code.startswith("%%") else code.replace("%s", _SAY, 1) + f"\nprint({LATER!r})"
