# Two images of one source: `ecm` (operator and gateway) and `engine-python` (what runs in an engine's pod).
# The base must be a Debian with Python 3.11 as python3; where no registry answers, the cluster tool makes one.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
# 10001: no user of the base image or of a common node. The name is for programs that ask who they are.
RUN echo "engine:x:10001:10001:engine:/tmp:/usr/sbin/nologin" >> /etc/passwd \
 && echo "engine:x:10001:" >> /etc/group
ENV HOME=/tmp USER=engine LOGNAME=engine LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin
RUN python3 -m venv /opt/venv

# Packages first: they change seldom, and a change of our own source then rebuilds the last layer alone.
FROM base AS ecm-packages
COPY requirements/runtime.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --no-compile --require-hashes -r /tmp/requirements.txt && rm /tmp/requirements.txt \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

FROM base AS engine-python-packages
COPY requirements/engine-python.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --no-compile --require-hashes -r /tmp/requirements.txt && rm /tmp/requirements.txt \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

# Bytecode is checked by nobody at run time (the root filesystem is read-only): each start saves the stats and reads.
FROM ecm-packages AS ecm
COPY operator/linkis_ecm /opt/venv/lib/python3.11/site-packages/linkis_ecm
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib/python3.11/site-packages/linkis_ecm
USER 10001:10001
EXPOSE 9102 9103 9104
ENTRYPOINT ["python", "-m", "linkis_ecm"]

FROM engine-python-packages AS engine-python
COPY operator/linkis_ecm/__init__.py /opt/venv/lib/python3.11/site-packages/linkis_ecm/__init__.py
COPY operator/linkis_ecm/agent /opt/venv/lib/python3.11/site-packages/linkis_ecm/agent
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib/python3.11/site-packages/linkis_ecm
USER 10001:10001
EXPOSE 9105
# -I: no variable of the environment and no file of the working directory changes what this process imports.
ENTRYPOINT ["python", "-I", "-m", "linkis_ecm.agent"]
