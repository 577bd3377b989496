"""The names of files in an engine's log folder and in its archive. Each is written here once.

Must not import anything: the agent reads it before it starts the kernel.
"""

# The streams of the engine's process.
STREAM_LOGS = ("stdout", "stderr")
# Those that Linkis's downloadEngineLog knows (gc belongs to engines on the JVM, yarnApp to those on YARN).
DOWNLOAD_LOGS = (*STREAM_LOGS, "gc", "yarnApp")
# Those that Linkis's openEngineLog knows: all of an engine's logs (udfLog belongs to engines on the JVM).
LOG_NAMES = (*DOWNLOAD_LOGS, "udfLog")
DEFAULT_LOG_DIR = "/var/log/engine"
# Where an engine's code starts: HOME of the image (Dockerfile), and of images whose own home cannot be written.
DEFAULT_HOME = "/tmp/home"  # noqa: S108 - in the engine's own volume
# A `once` engine's only task, and its result.
JOB_TASK = "job"
JOB_RESULT = "result.json"
# Where results that are too big to be shown are written, below the log folder.
RESULTS_FOLDER = "results"
# Which task has which of them.
RESULTS_LIST = "results.json"
# The agent's own settings. The kernel runs the user's code: it gets none of them.
PRIVATE_PREFIX = "ECM_"
# Before the name of a variable that is the kernel's alone (engine.pod.launch.kernel_name writes them).
KERNEL_ENV_PREFIX = "ECM_ENV_"
# The token by which the agent proves its pod (engine.pod.launch.identity_volume mounts it).
IDENTITY_FILE = "/var/run/linkis-ecm/token"
# What a run type holds, in the EngineConnPlugin's schema too (model.formats): c#, c++17 and .net-csharp are languages.
RUN_TYPE_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789_.+#-"
RUN_TYPE_MAX = 30

# On a kernel's control channel: the agent has sent SIGINT; its stage is 1 for the first one (kernel.interrupts).
INTERRUPT_MESSAGE = "linkis_interrupt"
# The uid in the reports of an agent that waits in a warm pool for its engine.
MEMBER_UID = "member"
# The agent's words where it refuses code because another user's runs: the gateway has its own for them.
OTHERS_TASK = "code of another user runs or waits in this engine, and is not ended for yours"
# The same for code that was let in before another user's, and comes after it.
LATE_CODE = "another user has got this engine since your code was let in, and the kernel is that user's"


def run_type_of(name: str) -> str:
    """The run type of a language or a kernel, and what a caller's spelling of one means: `Deno` is `deno`."""
    lower = name.strip().lower()[:RUN_TYPE_MAX]
    return "".join(character if character in RUN_TYPE_CHARACTERS else "_" for character in lower)
