"""What a user's code finds in an engine's own image on a real cluster: files, packages, shared memory, fonts, programs.

One engine runs all; each code is a common call of one bundled package, or of Python itself.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tools.cluster import tools
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import Installation
from tools.testkit.cluster.waiting import NAMESPACE, until_state
from tools.testkit.gateway.client import Gateway, texts

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    pytest.mark.skipif(tools.backend() != "node", reason="engines of another's cluster may have another image"),
]
API = "linkis.apache.org/v1alpha1"


class Box:
    """An engine, by its ticket."""

    def __init__(self, gateway: Gateway, ticket: str) -> None:
        self.gateway = gateway
        self.ticket = ticket

    def run(self, code: str) -> dict[str, Any]:
        result: dict[str, Any] = self.gateway.execute(self.ticket, code).data
        return result

    def said(self, code: str) -> str:
        """What succeeding code prints, and its value."""
        result = self.run(code)
        assert result["status"] == "Succeed", result
        return texts(result).strip()

    def restart(self) -> None:
        body = {"engineId": self.ticket, "command": "restartKernel", "parameters": {}}
        path = "/api/rest_j/v1/engineconnManager/sendEngineCommand"
        assert self.gateway.request("POST", path, body).ok


@pytest.fixture(scope="module")
def gateway(installation: Installation) -> Iterator[Gateway]:
    with installation.forward() as port, Gateway("127.0.0.1", port, installation.token) as client:
        yield client


@pytest.fixture(scope="module")
def box(gateway: Gateway) -> Iterator[Box]:
    made = gateway.create(resources={"memory": "1Gi"}).data
    yield Box(gateway, made["engineId"])
    gateway.terminate(made["engineId"])


# --- files


def test_code_starts_in_an_empty_writable_home(box: Box) -> None:
    code = """
import json, os, pathlib, pwd
me = pwd.getpwuid(os.getuid())
shown = sorted(name for name in os.listdir() if not name.startswith("."))
print(json.dumps([os.getcwd(), str(pathlib.Path.home()), os.path.expanduser("~engine"), me.pw_name, shown]))
"""
    assert json.loads(box.said(code)) == ["/tmp/home", "/tmp/home", "/tmp/home", "engine", []]
    assert box.said("!pwd && touch x && ls") == "/tmp/home\r\nx"


FILES = """
import os, pickle, sqlite3, tempfile
import duckdb, pandas as pd, matplotlib.pyplot as plt
pd.DataFrame({"a": [1]}).to_csv("out.csv")
os.makedirs("output/deep")
sqlite3.connect("a.db").execute("create table t (a int)").connection.close()
duckdb.connect("x.db").execute("create table t as select 1").close()
plt.plot([1, 2]); plt.savefig("fig.png"); plt.close("all")
pickle.dump([1], open("p.pkl", "wb"))
open("helper_here.py", "w").write("value = 'mine'")
import helper_here
tempfile.NamedTemporaryFile().close()
os.makedirs(os.path.expanduser("~/.cache/mine"))
print(helper_here.value, sorted(name for name in os.listdir() if not name.startswith(".")))
"""


def test_relative_names_work(box: Box) -> None:
    assert box.said(FILES) == ("mine ['a.db', 'fig.png', 'helper_here.py', 'out.csv', 'output', 'p.pkl', 'x', 'x.db']")


def test_the_agent_keeps_nothing_there_and_takes_nothing_from_there(box: Box) -> None:
    """The image starts it with -I: its own path has neither the folder nor the user's site."""
    argv = json.loads(box.said("import json; print(json.dumps(open('/proc/1/cmdline').read().split(chr(0))[:-1]))"))
    assert argv[1:] == ["-I", "-m", "linkis_ecm.agent"]
    for name in ("json", "sitecustomize", "usercustomize", "zmq"):
        box.said(f"open('{name}.py', 'w').write('raise SystemExit(9)')")
    box.restart()
    assert box.said("import json; print(json.dumps(6 * 7))") == "42"
    box.said("import os; [os.remove(f'{name}.py') for name in ('json', 'sitecustomize', 'usercustomize', 'zmq')]")


def test_an_engine_starts_where_it_was_told_to(gateway: Gateway) -> None:
    name = f"box-{uuid.uuid4().hex[:6]}"
    spec = {
        "engineType": "python", "user": "hadoop", "workingDir": "/data/project",
        "volumes": [{"name": "d", "mountPath": "/data", "emptyDir": {"sizeLimit": "16Mi"}}],
    }  # fmt: skip
    body = {"apiVersion": API, "kind": "EngineConn", "metadata": {"name": name}, "spec": spec}
    kubectl.must("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
    try:
        placed = Box(gateway, until_state(name, "Idle")["ticketId"])
        assert placed.said(
            "import os; open('x', 'w').close(); print(os.getcwd(), os.environ['HOME'], os.listdir())"
        ) == ("/data/project /tmp/home ['x']")
        said = kubectl.run("patch", "ec", name, "-n", NAMESPACE, "--type=merge", "-p", '{"spec":{"workingDir":"/x y"}}')
        assert said.code != 0
        assert "workingDir" in said.err
    finally:
        kubectl.run("delete", "ec", name, "-n", NAMESPACE, "--timeout=60s")


# --- packages of the session

PROJECT = """
import os
os.makedirs("pk/hkpkg", exist_ok=True)
open("pk/hkpkg/__init__.py", "w").write("value = 'installed'")
open("pk/setup.py", "w").write("from setuptools import setup; setup(name='hkpkg', version='1.0', packages=['hkpkg'])")
"""


@pytest.mark.parametrize("how", ["%pip install", "!pip install --user", "!python -m pip install"])
def test_a_session_installs_packages(box: Box, how: str) -> None:
    box.said(PROJECT)
    said = box.said(f"{how} --no-build-isolation --no-index ./pk")
    assert "Successfully installed hkpkg-1.0" in said
    assert "\x1b" not in said
    box.restart()
    assert box.said("import hkpkg; print(hkpkg.value)") == "installed"
    assert "Successfully uninstalled hkpkg-1.0" in box.said("%pip uninstall --yes hkpkg")


def test_an_install_that_fails_says_so(box: Box) -> None:
    result = box.run("%pip install --no-index --find-links . pandas==99 \nprint('went on')")
    assert (result["status"], result["outputs"][-1]["name"]) == ("Failed", "PipError")
    assert "No matching distribution found for pandas==99" in texts(result)
    assert "went on" not in texts(result)


# --- shared memory

SHARE = """
import os
from multiprocessing import shared_memory
def used():
    for path in ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes"):
        if os.path.exists(path):
            return int(open(path).read())
before, room = used(), os.statvfs("/dev/shm")
block = shared_memory.SharedMemory(create=True, size=200_000_000)
block.buf[:] = bytes(200_000_000)
grown = used() - before
block.close(); block.unlink()
print(room.f_blocks * room.f_frsize >> 20, 190_000_000 < grown < 450_000_000, used() - before < 300_000_000)
"""


def test_shared_memory_has_half_of_the_memory_and_counts_to_it(box: Box) -> None:
    assert box.said(SHARE) == "512 True True"
    assert box.said("from multiprocessing import Pool\nwith Pool(2) as p: print(p.map(abs, [-1, -2]))") == "[1, 2]"


# --- fonts

DRAW = """
import logging, time, warnings
caught = warnings.catch_warnings(); caught.__enter__()
warnings.simplefilter("error"); warnings.simplefilter("ignore", ResourceWarning)
logging.getLogger("matplotlib").setLevel(logging.DEBUG)
heard = []
class Heard(logging.Handler):
    def emit(self, record): heard.append(record.getMessage())
logging.getLogger("matplotlib").addHandler(Heard(logging.WARNING))
begun = time.process_time()
import matplotlib.pyplot as plt
{first}
plt.title("中文标题 繁體 日本語 한국어 ￥100 ℃"); plt.plot([-1, 1], label="数据"); plt.legend(); plt.xlabel("时间")
plt.savefig("zh.png"); plt.close("all"); caught.__exit__()
from matplotlib import font_manager
print(heard, "WenQuanYi Micro Hei" in {{one.name for one in font_manager.fontManager.ttflist}})
print(f"{{time.process_time() - begun:.1f}}")
"""


@pytest.mark.parametrize(
    "first",
    [
        "", "plt.style.use('ggplot')", "plt.rcdefaults()",
        "plt.rcParams['font.sans-serif'] = ['SimHei']; plt.rcParams['axes.unicode_minus'] = False",
        "plt.rcParams['font.family'] = 'Microsoft YaHei'",
    ],
)  # fmt: skip
def test_chinese_is_drawn_without_a_warning(box: Box, first: str) -> None:
    box.restart()
    said, seconds = box.said(DRAW.format(first=first)).splitlines()
    assert said == "[] True"
    # No list of fonts is made: 1 s and more on its own. Of the processor: the node may do other work.
    assert float(seconds) < 10
    assert (
        box.said("!ls -A ~/.cache/matplotlib").split()
        == box.said("!ls -A /opt/venv/share/linkis-ecm/matplotlib").split()
    )


# --- what is bundled

CALLS = {
    "duckdb": """
import duckdb
assert duckdb.sql("select now()").fetchall()[0][0].tzinfo is not None
assert str(duckdb.sql("select timestamptz '2026-11-27 12:00:00+08'").df().iloc[0, 0])
duckdb.sql("set timezone = 'Asia/Shanghai'")
assert duckdb.sql("select timestamptz '2026-11-27 12:00:00+00' at time zone 'Asia/Shanghai'").fetchall()
duckdb.sql("copy (select range a, 'x' || range b from range(10)) to 'd.parquet' (format parquet)")
duckdb.sql("copy (select * from 'd.parquet') to 'd.csv'")
duckdb.sql("copy (select * from 'd.csv') to 'd.json'")
assert duckdb.sql("select sum(a) from read_json('d.json')").fetchall() == [(45,)]
assert duckdb.sql("from 'd.csv'").arrow() is not None and len(duckdb.sql("from 'd.csv'").df()) == 10
loaded = {name for name, in duckdb.sql("select extension_name from duckdb_extensions() where loaded").fetchall()}
assert {"icu", "json", "parquet"} <= loaded, loaded
""",
    "pandas": """
import io, sqlite3, warnings
import pandas as pd
caught = warnings.catch_warnings(); caught.__enter__()
warnings.simplefilter("error"); warnings.simplefilter("ignore", ResourceWarning)
frame = pd.DataFrame({"a": [1, 2], "名": ["x", "张三"], "t": pd.to_datetime(["2026-01-01", "2026-02-01"])})
for kind in ("csv", "parquet", "json", "pickle", "feather", "orc"):
    getattr(frame, f"to_{kind}")(f"f.{kind}", **({"date_format": "iso"} if kind == "json" else {}))
    assert len(getattr(pd, f"read_{kind}")(f"f.{kind}")) == 2, kind
frame.to_excel("f.xlsx", index=False)
assert pd.read_excel("f.xlsx")["名"][1] == "张三"
assert "张三" in frame.to_markdown() and "张三" in frame.to_html() and "张三" in frame.style.to_html()
assert frame.to_latex()
frame.to_sql("f", sqlite3.connect("f.db")); assert len(pd.read_sql("select * from f", sqlite3.connect("f.db"))) == 2
frame.to_csv("f.csv.gz"); frame.to_csv("f.csv.zip"); frame.to_csv("f.csv.xz"); frame.to_csv("f.csv.bz2")
assert frame["t"].dt.tz_localize("Asia/Shanghai").dt.tz_convert("America/New_York").dt.hour[0] == 11
assert frame["a"].plot() is not None and frame.groupby("名")["a"].sum()["x"] == 1
assert frame.query("a > 1")["a"].rolling(1).mean().iloc[0] == 2
caught.__exit__()
""",
    "pyarrow": """
import pyarrow as pa, pyarrow.compute as pc
import pyarrow.csv, pyarrow.dataset, pyarrow.feather, pyarrow.json, pyarrow.orc, pyarrow.parquet
table = pa.table({"a": [1, 2, 3]})
for codec in ("snappy", "zstd", "lz4", "gzip", "brotli"):
    pyarrow.parquet.write_table(table, f"{codec}.parquet", compression=codec)
    assert pyarrow.parquet.read_table(f"{codec}.parquet").equals(table)
assert pyarrow.dataset.dataset(["zstd.parquet"]).to_table().num_rows == 3
pyarrow.csv.write_csv(table, "a.csv"); assert pyarrow.csv.read_csv("a.csv").equals(table)
pyarrow.orc.write_table(table, "a.orc"); assert pyarrow.orc.read_table("a.orc").equals(table)
assert pc.sum(table["a"]).as_py() == 6
zoned = pa.array([0], pa.timestamp("s", "Asia/Shanghai"))
assert pc.strftime(zoned, "%H").to_pylist() == ["08"]
assert zoned.to_pylist()[0].utcoffset().total_seconds() == 28800
import pyarrow.flight, pyarrow.substrait
""",
    "numpy": """
import numpy as np
np.save("a.npy", np.eye(3)); assert np.load("a.npy").sum() == 3
assert np.linalg.inv(np.eye(3) * 2)[0, 0] == 0.5 and np.fft.fft([1, 0])[0] == 1
assert np.random.default_rng(1).random(3).shape == (3,) and np.memmap("m.bin", shape=(8,), mode="w+").size == 8
""",
    "matplotlib": """
import matplotlib.pyplot as plt
for kind in ("png", "svg", "pdf", "jpg", "webp", "tif"):
    figure, axes = plt.subplots()
    axes.bar(["一", "二"], [1, 2]); axes.set_title(r"$\\alpha^2$"); figure.savefig(f"f.{kind}"); plt.close(figure)
# Text beside mathematics has one font.
plt.title(r"$\\alpha^2$ 图", family="SimHei"); plt.savefig("m.png")
from matplotlib import animation
animation.FuncAnimation(plt.gcf(), lambda at: [], frames=2).save("a.gif", writer="pillow"); plt.close("all")
""",
    "pillow": """
from PIL import Image, ImageDraw, ImageFont
image = Image.new("RGB", (64, 32))
ImageDraw.Draw(image).text((0, 0), "图", font=ImageFont.truetype("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc", 16))
for kind in ("png", "jpeg", "gif", "webp", "tiff", "bmp"):
    image.save(f"i.{kind}"); assert Image.open(f"i.{kind}").size == (64, 32)
""",
    "what pandas and others need": """
import jinja2, openpyxl, pytz, tabulate, dateutil.tz, packaging.version, psutil, debugpy, six
assert pytz.timezone("Asia/Shanghai") and dateutil.tz.gettz("Asia/Shanghai") and psutil.Process().memory_info().rss
assert jinja2.Template("{{ a }}").render(a=1) == "1" and tabulate.tabulate([[1]])
""",
    "times and places": """
import datetime, locale, time, zoneinfo
assert len(zoneinfo.available_timezones()) > 400
assert datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset().seconds == 7200
assert locale.setlocale(locale.LC_ALL, "") == "C.UTF-8" and locale.getpreferredencoding() == "UTF-8"
import sys; assert sys.getfilesystemencoding() == "utf-8" and open("中文.txt", "w").write("中文") == 2
""",
    "certificates": """
import ssl, urllib.request, http.client
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50
assert ssl.OPENSSL_VERSION
""",
    "pythons own": """
import bz2, ctypes, curses, dbm, decimal, gzip, hashlib, lzma, readline, sqlite3, tarfile, uuid, venv, zipfile, zlib
assert lzma.decompress(lzma.compress(b"x")) == bz2.decompress(bz2.compress(b"x")) == b"x"
assert ctypes.CDLL(None).getpid() > 0 and hashlib.sha3_256(b"").hexdigest() and uuid.uuid4()
assert sqlite3.connect(":memory:").execute("select json_extract('{\\"a\\":1}', '$.a')").fetchone() == (1,)
""",
    "processes": """
import asyncio, concurrent.futures, multiprocessing as mp, subprocess, sys
assert subprocess.run([sys.executable, "-c", "import pandas"]).returncode == 0
assert subprocess.check_output("echo 你好 | tr -d '\\\\n' | wc -c", shell=True).strip() == b"6"
for kind in ("fork", "spawn", "forkserver"):
    with mp.get_context(kind).Pool(1) as pool: assert pool.map(abs, [-1]) == [1]
with concurrent.futures.ProcessPoolExecutor(1) as pool: assert pool.submit(abs, -1).result() == 1
async def main(): return (await (await asyncio.create_subprocess_exec("true")).wait())
assert asyncio.run(main()) == 0
subprocess.run(["echo", "x"], stdout=sys.stdout, check=True)
""",
    "arguments": """
import argparse, sys
parser = argparse.ArgumentParser(); parser.add_argument("--n", type=int, default=3)
assert parser.parse_args().n == 3 and sys.argv == [""]
""",
}


@pytest.mark.parametrize("name", CALLS)
def test_the_common_calls_of(box: Box, name: str) -> None:
    result = box.run(CALLS[name])
    assert result["status"] == "Succeed", result["outputs"][-1]
    assert "Warning" not in texts(result), texts(result)


THERE = (
    "awk bash cat cp cut date df diff du env find grep gunzip gzip head hostname ls mkdir mv pip python rm sed sh sort"
    " tail tar tee tr uniq wc xargs"
)
# docs/working.md says so.
NOT_THERE = "apt curl gcc git less make nano perl ps ssh sudo top unzip vi wget"


def test_which_programs_are_there(box: Box) -> None:
    said = json.loads(
        box.said(
            f"import json, shutil\nasked = [{THERE!r}, {NOT_THERE!r}]\n"
            "print(json.dumps([[name for name in words.split() if shutil.which(name)] for words in asked]))"
        )
    )
    assert said == [THERE.split(), []]


# --- the end of it


def test_shared_memory_that_is_full_ends_the_engine_with_the_remedy(gateway: Gateway, box: Box) -> None:
    """The last test: the engine is gone."""
    result = box.run(
        "from multiprocessing import shared_memory\nblock = shared_memory.SharedMemory(create=True, size=700 << 20)\n"
        "for at in range(0, 700 << 20, 1 << 20): block.buf[at:at + (1 << 20)] = bytes(1 << 20)"
    )
    assert result["status"] == "Failed"
    message = until_state(gateway.status(box.ticket).data["name"], "Failed")["message"]
    assert "kernel was killed by SIGBUS: most often the shared memory is full (/dev/shm has 512 MiB" in message
    assert "ask for more memory" in message
