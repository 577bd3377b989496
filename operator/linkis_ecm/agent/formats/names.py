"""The names of files in an engine's log folder and in its archive. Each is written here once.

Must not import anything: the agent reads it before it starts the kernel.
"""

# Linkis's log names (gc and udfLog belong to engines on the JVM, yarnApp to those on YARN).
LOG_NAMES = ("stdout", "stderr", "gc", "yarnApp", "udfLog")
DEFAULT_LOG_DIR = "/var/log/engine"
# The result of a `once` engine's job.
JOB_RESULT = "result.json"
# Where results that are too big to be shown are written, below the log folder.
RESULTS_FOLDER = "results"
# Which task has which of them.
RESULTS_LIST = "results.json"
# The agent's own settings. The kernel runs the user's code: it gets none of them, above all not ECM_TOKEN.
PRIVATE_PREFIX = "ECM_"
