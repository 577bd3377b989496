#!/bin/sh
# Shows: the REST by curl. Creates an engine, runs code, reads its log, asks why it is as it is, ends it.
# Run:   with the three variables of examples/README.md:  sh examples/04-rest.sh
# Needs: curl, python3 (to read one field of an answer).
set -eu

ECM=${LINKIS_ECM_URL:?set it as examples/README.md says}/api/rest_j/v1/engineconnManager
: "${LINKIS_ECM_TOKEN:?}" "${LINKIS_ECM_USER:?}"

# The token goes to curl by a file descriptor, so that it is not in the list of processes.
ecm() {
    curl -sS --max-time 180 -H "Content-Type: application/json" -H @/dev/fd/3 "$@" 3<<HEADERS
Token-Code: $LINKIS_ECM_TOKEN
Token-User: $LINKIS_ECM_USER
HEADERS
    echo
}

# A field of an answer's data; where the call did not succeed, its sentence and the end.
field() {
    python3 -c '
import json, sys
answer = json.load(sys.stdin)
if answer["status"] != 0:
    sys.exit(answer["message"])
print(answer["data"][sys.argv[1]])' "$1"
}

# Answers when the engine takes code.
ID=$(ecm "$ECM/createEngineConnection" -d '{"engineType": "python"}' | field engineId)
trap 'ecm "$ECM/terminateEngine" -d "{\"engineId\": \"$ID\"}"' EXIT
echo "engine $ID"

echo "--- run code and wait for its result"
ecm "$ECM/executeCode" -d "{\"engineId\": \"$ID\", \"code\": \"print(6 * 7)\", \"runType\": \"python\"}"

echo "--- submit code, follow what it prints, read its result"
TASK=$(ecm "$ECM/executeCode" \
    -d "{\"engineId\": \"$ID\", \"code\": \"import time\\nfor n in range(3): print(n); time.sleep(0.2)\", \"runType\": \"python\", \"wait\": false}" \
    | field taskId)
ecm -N "$ECM/taskEvents?engineId=$ID&taskId=$TASK"
ecm "$ECM/getTaskResult?engineId=$ID&taskId=$TASK"

echo "--- the first lines of its log"
ecm "$ECM/getEngineLogs?engineId=$ID&logType=stdout&fromLine=1&lines=10"

echo "--- why it is in its state, and what ends it when"
ecm "$ECM/explainEngine?engineId=$ID"

echo "--- its end"
