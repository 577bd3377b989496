# Two images of one source: `ecm` (operator and gateway) and `engine-python` (what runs in an engine's pod).
# The base must be a Debian with Python 3.11 as python3, and is named by its digest:
#   --build-arg BASE_IMAGE=python:3.11-slim-bookworm@sha256:…
# There is no default: a tag means another image tomorrow. Where no registry answers, the cluster tool makes a base.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS base
ARG BASE_IMAGE
RUN case "${BASE_IMAGE}" in \
      *@sha256:*|localhost/*) ;; \
      *) echo "BASE_IMAGE=${BASE_IMAGE} is a tag: name the base by its digest, …@sha256:…" >&2; exit 1 ;; \
    esac

# What ships of the base: no package manager, no Perl, no setuid file (tools/image/prune.py).
FROM base AS pruned
COPY tools/image/prune.py /prune.py
# 10001: no user of the base image or of a common node. The name is for programs that ask who they are.
RUN PRUNE_ROOT=yes python3 /prune.py / && rm /prune.py \
 && echo "engine:x:10001:10001:engine:/tmp/home:/usr/sbin/nologin" >> /etc/passwd \
 && echo "engine:x:10001:" >> /etc/group

# Copied, so that no layer holds what was removed.
FROM scratch AS runtime
COPY --from=pruned / /
ENV HOME=/tmp USER=engine LOGNAME=engine LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin

# pip is in a virtual environment of its own, which never ships.
FROM base AS build
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/venv

# Packages first: they change seldom, and a change of our own source then rebuilds the last layer alone.
FROM build AS ecm-packages
COPY requirements/runtime.txt /tmp/requirements.txt
RUN /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes \
      -r /tmp/requirements.txt \
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

# A font with Chinese characters, of Debian (5 MB), with its licence and its entry for whoever lists the image's packages.
# The base that the cluster tool makes has it; a public one gets it here.
FROM base AS fonts
RUN [ -e /usr/share/fonts/truetype/wqy ] \
 || { apt-get update && apt-get install -y --no-install-recommends fonts-wqy-microhei; }
RUN mkdir -p /fonts/usr/share/fonts/truetype /fonts/usr/share/doc/fonts-wqy-microhei /fonts/var/lib/dpkg/status.d \
 && cp -r /usr/share/fonts/truetype/wqy /fonts/usr/share/fonts/truetype/ \
 && cp /usr/share/doc/fonts-wqy-microhei/copyright /fonts/usr/share/doc/fonts-wqy-microhei/ \
 && dpkg-query -s fonts-wqy-microhei > /fonts/var/lib/dpkg/status.d/fonts-wqy-microhei

# Its pip and setuptools are for sessions (agent/kernel/packages.py), which have a command of their own. The hook of
# setuptools would cost each start of Python 1 ms, for a distutils that Python has.
FROM build AS engine-python-packages
COPY requirements/engine-python.txt /tmp/requirements.txt
RUN /opt/build/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --require-hashes \
      -r /tmp/requirements.txt \
 && rm -rf /opt/venv/bin/pip* /opt/venv/lib/python3.11/site-packages/distutils-precedence.pth
COPY --from=fonts /fonts/usr/share/fonts /usr/share/fonts
COPY tools/image/fonts.py /tmp/fonts.py
RUN MPLCONFIGDIR=/tmp/mpl /opt/venv/bin/python /tmp/fonts.py /opt/venv/share/linkis-ecm/matplotlib \
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

# Bytecode is checked by nobody at run time (the root filesystem is read-only): each start saves the stats and reads.
FROM runtime AS ecm
COPY --from=ecm-packages /opt/venv /opt/venv
COPY operator/linkis_ecm /opt/venv/lib/python3.11/site-packages/linkis_ecm
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib/python3.11/site-packages/linkis_ecm
USER 10001:10001
EXPOSE 9102 9103 9104
ENTRYPOINT ["python", "-m", "linkis_ecm"]

FROM runtime AS engine-python
COPY --from=fonts /fonts /
COPY --from=engine-python-packages /opt/venv /opt/venv
COPY operator/linkis_ecm/__init__.py /opt/venv/lib/python3.11/site-packages/linkis_ecm/__init__.py
COPY operator/linkis_ecm/agent /opt/venv/lib/python3.11/site-packages/linkis_ecm/agent
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib/python3.11/site-packages/linkis_ecm
# The folder in which the user's code starts; the agent makes it, in the engine's own volume.
ENV HOME=/tmp/home
USER 10001:10001
EXPOSE 9105
# -I: no variable of the environment and no file of the working directory changes what this process imports.
ENTRYPOINT ["python", "-I", "-m", "linkis_ecm.agent"]
