"""What a model could write to get out of the sandbox or to exhaust it, in groups.

@FILE@ stands for a file whose content is @CANARY@'s value, @NEW@ for a file that does not exist, @PORT@ for a port of
this machine that listens, @VARIABLE@ for an environment variable that holds the same value.
"""

IMPORTS = r"""
import os; os.system("cat @FILE@")
import subprocess; subprocess.check_output(["cat", "@FILE@"]).decode()
import socket; socket.gethostname()
import ctypes; ctypes.CDLL(None).getpid()
import importlib; importlib.import_module("subprocess").getoutput("id")
import builtins; builtins.open("@FILE@").read()
import pickle; pickle.loads(b"cos\\nsystem\\n(S'id'\\ntR.")
import shutil; shutil.copy("@FILE@", "@NEW@")
import multiprocessing; multiprocessing.cpu_count()
import threading; threading.active_count()
import signal; signal.alarm(1)
import inspect; inspect.stack()[0].filename
import gc; len(gc.get_objects())
import marshal; marshal.dumps(1)
import code; code.interact()
import platform; platform.node()
import pty; pty.spawn("/bin/sh")
import tempfile; tempfile.mkdtemp()
import urllib.request; urllib.request.urlopen("http://127.0.0.1:@PORT@").read()
import posix; posix.getpid()
__import__("os").popen("id").read()
from os import system; system("touch @NEW@")
exec("import subprocess\\nout = subprocess.getoutput('id')"); out
eval("__import__('os').getpid()")
import sys; sys.modules["os"].getpid()
import sys; sys.path[0]
import sys; sys._getframe().f_code.co_filename
import pydantic_monty; pydantic_monty.__version__
import engine; engine.__version__
"""

FILES = r"""
open("@FILE@").read()
open("@FILE@", "rb").read().decode()
open("@NEW@", "w").write("x")
open("@NEW@", "a").write("x")
open("../../../../../..@FILE@").read()
open("/etc/passwd").read()
open("/proc/self/environ").read()
open("/proc/self/maps").read()
open("/dev/urandom", "rb").read(4)
open(0).read()
from pathlib import Path; Path("@FILE@").read_text()
from pathlib import Path; Path("@FILE@").read_bytes().decode()
from pathlib import Path; Path("@NEW@").write_text("x")
from pathlib import Path; Path("@NEW@").mkdir()
from pathlib import Path; Path("@FILE@").unlink()
from pathlib import Path; Path("@FILE@").rename("@NEW@")
from pathlib import Path; [str(entry) for entry in Path("/").iterdir()]
from pathlib import Path; Path("@NEW@").symlink_to("@FILE@")
from pathlib import Path; Path("@FILE@").stat().st_size
from pathlib import Path; str(Path.home())
import io; io.open("@FILE@").read()
import io; io.FileIO("@FILE@").read()
import os; os.listdir("/")
import os; os.remove("@FILE@")
import os; os.mkdir("@NEW@")
import os; os.open("@FILE@", 0)
import os; os.rename("@FILE@", "@NEW@")
import os; [entry.name for entry in os.scandir("/")]
import os; os.stat("@FILE@").st_size
with open("@FILE@") as file: text = file.read()\ntext
"""

ENVIRONMENT = r"""
import os; os.environ["@VARIABLE@"]
import os; os.getenv("@VARIABLE@")
import os; dict(os.environ)
import os; os.environ.get("@VARIABLE@", "")
from os import environ; environ["@VARIABLE@"]
from os import getenv; getenv("@VARIABLE@") or missing
import os; os.environb
import os.path; os.path.expandvars("$@VARIABLE@") or missing
import os; os.putenv("@VARIABLE@", "x")
import os; os.uname().nodename
import os; os.getlogin()
import os; os.getpid()
import os; os.fork()
import os; os.execv("/bin/sh", ["sh", "-c", "touch @NEW@"])
import os; os.popen("cat @FILE@").read()
import os; os.spawnlp(os.P_WAIT, "touch", "touch", "@NEW@")
import os; os.kill(os.getppid(), 9)
import os; os.urandom(4).hex()
"""

NETWORK = r"""
import socket; socket.create_connection(("127.0.0.1", @PORT@))
import http.client; http.client.HTTPConnection("127.0.0.1", @PORT@).request("GET", "/")
import urllib.request as r; r.urlopen("http://127.0.0.1:@PORT@/")
import ftplib; ftplib.FTP("127.0.0.1")
import asyncio; await asyncio.open_connection("127.0.0.1", @PORT@)
import asyncio; await asyncio.create_subprocess_shell("touch @NEW@")
import asyncio; asyncio.get_event_loop().run_in_executor(None, open, "@FILE@")
import requests; requests.get("http://127.0.0.1:@PORT@/")
import httpx; httpx.get("http://127.0.0.1:@PORT@/")
import ssl; ssl.get_server_certificate(("127.0.0.1", @PORT@))
import smtplib; smtplib.SMTP("127.0.0.1", @PORT@)
from pathlib import Path; Path("//127.0.0.1/share").read_text()
"""

WALKS = r"""
().__class__.__base__.__subclasses__()
().__class__.__bases__[0].__subclasses__()
"".__class__.__mro__[1].__subclasses__()
[c for c in ().__class__.__mro__[-1].__subclasses__() if c.__name__ == "Popen"][0]
(lambda: 0).__globals__["__builtins__"]
(lambda: 0).__code__.co_code.hex()
(lambda: 0).__code__.replace(co_code=b"")
(lambda: 0).__closure__[0].cell_contents
def f(): pass\nf.__globals__["__builtins__"]["open"]("@FILE@").read()
def f(): pass\nf.__builtins__["open"]("@FILE@").read()
(i for i in [1]).gi_frame.f_back.f_globals
(i for i in [1]).gi_code.co_filename
async def f(): pass\nf().cr_frame.f_back.f_builtins
try:\n    1 / 0\nexcept Exception as e:\n    found = e.__traceback__.tb_frame.f_back.f_globals\nfound
try:\n    1 / 0\nexcept Exception as e:\n    found = e.__traceback__.tb_frame.f_builtins["open"]("@FILE@").read()\nfound
try:\n    missing\nexcept NameError as e:\n    found = e.__context__.__traceback__.tb_frame\nfound
"{0.__class__.__base__.__subclasses__}".format(()) + missing
"{0.__globals__[__builtins__]}".format(lambda: 0)
"{x.__init__.__globals__}".format(x=ValueError())
f"{(lambda: 0).__globals__}"
"%(__builtins__)s" % __builtins__
getattr((), "__cl" + "ass__").__base__.__subclasses__()
getattr(getattr(print, "__self__"), "open")("@FILE@").read()
getattr(open, "__self__").__import__("os").getpid()
print.__self__.__loader__.load_module("os").getpid()
__builtins__["open"]("@FILE@").read()
__builtins__.open("@FILE@").read()
__loader__.load_module("os").getpid()
__spec__.loader
globals()["__builtins__"]["open"]("@FILE@").read()
locals()["__builtins__"]
vars()["__builtins__"]
vars(())["__class__"]
dir(__builtins__)
object.__subclasses__()
type.__subclasses__(type)
type.mro(type(1))[1].__subclasses__()
type("X", (object,), {"__del__": open})().__del__("@FILE@").read()
type("X", (int,), {})(3).__class__.__base__.__subclasses__()
type((lambda: 0).__code__)(0, 0, 0, 0, 0, 0, b"", (), (), (), "", "", "", 0, b"", b"")
compile("1", "x", "eval")
exec("x = __builtins__['open']('@FILE@').read()", {}); x
exec("x = open('@FILE@').read()", {"__builtins__": {"open": open}}); x
eval("().__class__.__base__.__subclasses__()", {})
setattr(int, "__add__", lambda a, b: 3) or (1).__class__.__base__
class A:\n    def __getattr__(self, name): return open\nA().x("@FILE@").read()
class A:\n    def __reduce__(self): return (open, ("@FILE@",))\nimport copy\ncopy.copy(A()).read()
import functools; functools.partial(open, "@FILE@")().read()
import functools; functools.reduce(lambda a, b: a(b), [open, "@FILE@"]).read()
import re; re.sub("a", lambda m: open("@FILE@").read(), "a")
list(map(open, ["@FILE@"]))[0].read()
sorted(["@FILE@"], key=lambda name: open(name).read())
import json; json.loads('"a"', object_hook=open, cls=open)
import json; json.JSONEncoder.default.__globals__
import operator; operator.attrgetter("__class__.__base__.__subclasses__")(())()
import typing; typing.get_type_hints(open)
import sys; sys.stdout.buffer.raw.name
import sys; sys.stderr.write("x" * 10) and sys.stdin.read()
breakpoint()
help("modules")
input()
"""

# The word after `#` is the limit that must end it, or `any` where the interpreter may also come to an end by itself.
LOOPS = r"""
while True: pass  # time
while 1: x = 1  # time
for i in iter(int, 1): pass  # time
import itertools\nfor i in itertools.count(): pass  # any
import itertools\nfor i in itertools.cycle([1]): pass  # any
sum(1 for i in range(10**12))  # any
sum(range(10**12))  # time
max(range(10**12))  # time
all(i >= 0 for i in range(10**12))  # any
[i for i in range(10**12) if i < 0]  # time
{i % 7 for i in range(10**12)}  # time
10**18 in (i for i in range(10**19))  # any
any(map(lambda i: i < 0, range(10**12)))  # any
def f(n): return f(n - 1) + f(n - 1) if n else 1\nf(60)  # time
try:\n    while True: pass\nexcept BaseException: pass\n'caught'  # time
try:\n    while True: pass\nfinally:\n    while True: pass  # time
while True:\n    try:\n        while True: pass\n    except BaseException: pass  # time
class A:\n    def __iter__(self): return self\n    def __next__(self): return 1\nfor x in A(): pass  # any
x = 3\nfor i in range(60): x = x * x  # any
x = 3\nwhile True: x = x**3 % (2**4000 + 1)  # time
pow(3, 10**7, 10**6000 + 7)  # any
import math; math.factorial(10**7) % 7  # any
import math; math.comb(10**7, 5 * 10**6) % 7  # any
len(str(7**3000000))  # any
int("9" * 3000000) % 7  # any
import re; re.match(r"(a+)+$", "a" * 40 + "b")  # any
import re; re.match(r"(a|a)*$", "a" * 40 + "b")  # any
import re; re.match(r"(?=(a+)+$)b|(a*)*\\1$", "a" * 5000 + "b")  # any
import re; [re.match(r"(.*)(.*)(.*)(.*)\\1x", "a" * 3000) for i in range(1000)]  # any
("a" * 3000000).count("a" * 1500000 + "b")  # any
("a" * 3000000 + "b") in ("a" * 6000000)  # any
l = [3] * 400000\nwhile True: l.sort()  # time
sorted([0] * 400000, key=lambda i: sum(range(10**9)))  # time
l = list(range(100000))\nwhile True: l.insert(0, l.pop())  # time
d = {}\nwhile True: d[1] = 2  # time
while True: eval("1 + 1")  # any
while True: exec("pass")  # any
import asyncio\nasync def f():\n    while True: await asyncio.sleep(0)\nawait f()  # any
import asyncio\nasync def f():\n    while True: pass\nawait asyncio.gather(f(), f())  # time
import json\nwhile True: json.loads("[" * 50 + "]" * 50)  # time
from decimal import Decimal; Decimal(3) ** 10**9 % 7  # any
import datetime\nd = datetime.date(1, 1, 1)\nwhile True: d + datetime.timedelta(1)  # time
while True:\n    try: missing\n    except NameError: pass  # any
while True:\n    try: open("/etc/passwd")\n    except Exception: pass  # any
"""

MEMORY = r"""
[0] * 10**9  # memory
"a" * 10**10  # memory
b"a" * 10**10  # memory
(1,) * 10**9  # memory
list(range(10**9))  # memory
set(range(10**8))  # memory
dict.fromkeys(range(10**8))  # memory
{i: [i] for i in range(10**8)}  # memory
l = []\nwhile True: l.append(l[:])  # memory
l = [0]\nwhile True: l += l  # memory
s = "a"\nwhile True: s += s  # memory
t = (0,)\nwhile True: t = (t, t, "x" * 100000)  # memory
2 ** 10**9  # memory
1 << 10**10  # memory
10 ** 10**8 % 7  # memory
"{:>10000000000}".format(1)  # any
f"{1:>10000000000}"  # any
"%10000000000d" % 1  # any
"a".ljust(10**10)  # memory
"a".zfill(10**10)  # any
"a,".replace("a", "b" * 10**7).join(["a"] * 100)  # memory
",".join(["a" * 10**6] * 1000)  # memory
("a" * 10**6).split("a") * 1000  # memory
[[0] * 10**6 for i in range(1000)]  # memory
try:\n    x = "a" * 10**10\nexcept BaseException:\n    x = "caught"\nx * 10**9  # memory
import itertools; list(itertools.product(range(100), repeat=10))  # memory
import itertools; list(itertools.permutations(range(20)))  # memory
import json; json.loads("[" + "1," * 10**7 + "1]")  # memory
import re; re.compile("(a{1000}){1000}{1000}")  # any
import random; random.choices([1], k=10**9)  # any
import base64; base64.b64encode(b"a" * 10**9)  # memory
class A:\n    def __init__(self): self.x = [0] * 1000\nl = []\nwhile True: l.append(A())  # memory
l = []\nwhile True: l.append(lambda: l)  # memory
a = 0\nwhile True: a = [a]  # memory
"""

RECURSION = r"""
def f(): return f()\nf()  # recursion
def f(): return g()\ndef g(): return f()\nf()  # recursion
f = lambda: f()\nf()  # recursion
class A:\n    def __repr__(self): return repr(self)\nrepr(A())  # any
class A:\n    def __getattr__(self, name): return getattr(self, name)\nA().x  # any
class A:\n    def __eq__(self, other): return self == other\nA() == A()  # any
a = []\na.append(a)\nb = []\nb.append(b)\na == b  # any
a = 0\nfor i in range(50000): a = [a]\nrepr(a)  # any
a = 0\nfor i in range(50000): a = (a,)\nhash(a)  # any
a = 0\nfor i in range(50000): a = {"k": a}\na  # any
import json; json.loads("[" * 100000 + "]" * 100000)  # any
import json\na = 0\nfor i in range(50000): a = [a]\njson.dumps(a)  # any
import copy\na = 0\nfor i in range(50000): a = [a]\ncopy.deepcopy(a)  # any
sorted([1, 2], key=lambda x: sorted([1], key=lambda y: eval("f()")))  # any
eval("(" * 5000 + "1" + ")" * 5000)  # any
exec("x = " + "[" * 5000 + "]" * 5000)  # any
def f(): exec("f()")\nf()  # any
def f(n):\n    try: return f(n + 1)\n    except RecursionError: return f(n)\nf(0)  # any
import re; re.compile("(" * 10000 + ")" * 10000)  # any
"""

NESTED_SOURCES = (
    "(" * 5000 + "1" + ")" * 5000,
    "[" * 100_000,
    "-" * 100_000 + "1",
    "not " * 50_000 + "1",
    "1+" * 200_000 + "1",
    "a" + ".b" * 100_000,
    "f" + "()" * 50_000,
    "lambda: " * 50_000 + "1",
    "1 if 1 else " * 50_000 + "1",
    "".join(" " * depth + "if 1:\n" for depth in range(2000)) + " " * 2000 + "pass",
    "x = 1\n" * 500_000,
    "x" * 5_000_000,
    "'" + "x" * 5_000_000 + "'",
    "9" * 3_000_000,
    '"' + "\\N{BULLET}" * 100_000 + '"',
)

OUTPUT = r"""
while True: print("x")  # any
while True: print("x" * 100000)  # any
while True: print()  # any
print("x" * 10**7)  # any
for i in range(10**9): print(i, end="")  # any
import sys\nwhile True: print("x" * 1000, file=sys.stderr)  # any
print(*["x"] * 10**6)  # any
"x" * 10**7  # output
["x"] * 100000  # output
a = []\nfor i in range(60): a = [a, a]\na  # output
a = {}\nfor i in range(60): a = {"a": a, "b": a}\na  # output
10**9999  # any
raise ValueError("x" * 10**7)  # any
raise ValueError("\\x1b[2J\\nforged line")  # any
assert False, "x" * 10**7  # any
"""

# Each of these gives the time, in seconds since 1970 or as a date; none may be today's.
CLOCKS = r"""
import time; time.time()
import time; time.time_ns() / 1e9
import time; time.mktime(time.localtime())
import time; time.strftime("%Y-%m-%d")
import time; time.gmtime().tm_year * 1.0
import time; time.ctime()
import datetime; datetime.datetime.now().isoformat()
import datetime; datetime.datetime.now(datetime.timezone.utc).timestamp()
import datetime; datetime.datetime.today().isoformat()
import datetime; datetime.date.today().isoformat()
import datetime; datetime.datetime.utcnow().isoformat()
from datetime import datetime; f"{datetime.now():%Y-%m-%d}"
"""

# Each must give the same in every process.
CHANCE = r"""
import random; random.random()
import random; [random.randint(1, 10**9) for i in range(5)]
import random; random.Random().random()
import random; random.seed(); random.random()
import random; l = list(range(50)); random.shuffle(l); l
import random; random.choice(range(10**9))
import random; random.gauss(0, 1)
import random; random.SystemRandom().random()
import uuid; str(uuid.uuid4())
import secrets; secrets.token_hex()
hash("text")
list({"a", "b", "c", "d", "e"})
id([])
import time; [time.perf_counter(), time.monotonic(), time.process_time(), time.thread_time()]
"""

SLEEPS = r"""
import time; time.sleep(60)
import time\nfor i in range(1000): time.sleep(60)
import time\nwhile True: time.sleep(60)
import time; time.sleep(10**9)
import asyncio; await asyncio.sleep(60)
import asyncio; await asyncio.gather(*[asyncio.sleep(60) for i in range(100)])
import asyncio\nasync def f():\n    await asyncio.sleep(60)\n    return 1\nawait f()
import asyncio\nasync def f():\n    await asyncio.sleep(60)\nasyncio.run(f())
import time\nstart = time.time()\nwhile time.time() < start + 5: pass
import time\nstart = time.monotonic()\nwhile time.monotonic() < start + 5: time.sleep(0.001)
"""


# Statements on a database with the tables `notes(id, text)` and `big(x)` of 20,000 rows; @FILE@ is another database.
# None may give a value.
SQL_REFUSED = r"""
INSERT INTO notes VALUES (9, 'x')
REPLACE INTO notes VALUES (1, 'x')
UPDATE notes SET text = 'x' RETURNING text
DELETE FROM notes RETURNING text
DROP TABLE notes
DROP VIEW seen
ALTER TABLE notes ADD COLUMN c
CREATE TABLE t(a)
CREATE TEMP TABLE t(a)
CREATE TEMP VIEW v AS SELECT 1
CREATE TRIGGER r AFTER INSERT ON notes BEGIN SELECT 1; END
CREATE VIRTUAL TABLE v USING fts5(a)
CREATE INDEX i ON notes(text)
WITH t(a) AS (SELECT 1) INSERT INTO notes SELECT a, a FROM t
ATTACH '@FILE@' AS other
ATTACH ':memory:' AS other
ATTACH 'file:@FILE@?mode=ro' AS other
DETACH main
VACUUM
VACUUM INTO '@NEW@'
ANALYZE
REINDEX
BEGIN
BEGIN IMMEDIATE
COMMIT
SAVEPOINT s
PRAGMA journal_mode = DELETE
PRAGMA query_only = OFF
PRAGMA writable_schema = ON
PRAGMA trusted_schema = ON
PRAGMA temp_store_directory = '@NEW@'
PRAGMA database_list
PRAGMA user_version = 7
PRAGMA hard_heap_limit = 0
PRAGMA wal_checkpoint
PRAGMA optimize
SELECT * FROM pragma_database_list
SELECT load_extension('@FILE@')
SELECT load_extension('/lib/x86_64-linux-gnu/libc.so.6', 'system')
SELECT readfile('@FILE@')
SELECT writefile('@NEW@', 'x')
SELECT edit('x')
SELECT fts3_tokenizer('simple', x'00')
SELECT random()
SELECT randomblob(4)
SELECT * FROM other.secret
SELECT * FROM "@FILE@"
SELECT 1; SELECT 2
SELECT 1; DROP TABLE notes
SELECT * FROM big; DELETE FROM notes
; ; SELECT 1; COMMIT; BEGIN
EXPLAIN SELECT 1; DELETE FROM notes
SELECT zeroblob(8)
SELECT zeroblob(1000000000)
SELECT hex(zeroblob(1500000))
SELECT printf('%.*c', 1000000000, 'x')
SELECT replace(hex(zeroblob(1000000)), '0', hex(zeroblob(1000000)))
SELECT group_concat(a.x || b.x) FROM big a, big b
SELECT 9e999
SELECT CAST(x'ff' AS TEXT)
SELECT
SELECT FROM WHERE
SELECT nothing FROM notes
-- nothing
"""

# Each would take minutes or more.
SQL_ENDLESS = r"""
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n WHERE i < 0
SELECT count(*) FROM big a, big b, big c
SELECT a.x FROM big a, big b, big c ORDER BY a.x || b.x || c.x
SELECT instr(replace(hex(zeroblob(2000000)), '0', 'a'), replace(hex(zeroblob(1000000)), '0', 'a') || 'b')
SELECT length(trim(replace(hex(zeroblob(2000000)), '0', 'a'), replace(hex(zeroblob(100000)), '0', 'b') || 'a'))
SELECT sum(length(replace(hex(zeroblob(1000000)), '0', 'ab'))) FROM big a, big b
SELECT count(DISTINCT a.x || b.x) FROM big a, big b
"""


def listed(group: str) -> list[str]:
    """The sources of a group, one a line, in which `\\n` stands for a new line and a doubled backslash for itself."""
    lines = [line for line in group.splitlines() if line]
    return [line.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\") for line in lines]


def limited(group: str) -> list[tuple[str, str]]:
    """The sources of a group with the limit that must end each."""
    return [(source, limit) for source, _, limit in (line.rpartition("  # ") for line in listed(group))]
