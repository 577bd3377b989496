# Jupyter Enterprise Gateway beside ours, for `python -m bench.jeg`: its gateway on our base, its launcher on our engine's
# image. Its files come from its release on PyPI when this is built; nothing of it is in this repository.
ARG BASE_IMAGE
ARG ENGINE_IMAGE

FROM ${BASE_IMAGE} AS source
COPY jeg-requirements.txt /tmp/requirements.txt
# The wheel has no kernelspec and no launcher; the source has. The same pin, looked at alone.
RUN python3 -m venv /opt/pip && mkdir /source \
 && sed -n '/^jupyter-enterprise-gateway==/,/[^\\]$/p' /tmp/requirements.txt > /tmp/one.txt \
 && /opt/pip/bin/pip download -q --no-deps --no-binary jupyter-enterprise-gateway --require-hashes -r /tmp/one.txt -d /tmp \
 && tar xzf /tmp/jupyter_enterprise_gateway-*.tar.gz -C /source --strip-components=1

# As our own images: bytecode that nobody checks, no root.
FROM ${BASE_IMAGE} AS gateway
RUN echo "jeg:x:10001:10001:jeg:/tmp:/usr/sbin/nologin" >> /etc/passwd && echo "jeg:x:10001:" >> /etc/group
ENV HOME=/tmp LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin
COPY jeg-requirements.txt /tmp/requirements.txt
RUN python3 -m venv /opt/venv \
 && pip install --no-cache-dir --no-compile --require-hashes -r /tmp/requirements.txt && rm /tmp/requirements.txt \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib
COPY --from=source /source/etc/kernelspecs/python_kubernetes /usr/local/share/jupyter/kernels/python_kubernetes
COPY --from=source /source/etc/kernel-launchers/kubernetes /usr/local/share/jupyter/kernels/python_kubernetes
USER 10001:10001
EXPOSE 8888 8877
ENTRYPOINT ["jupyter", "enterprisegateway"]

# The same interpreter, ipykernel and packages as an engine of ours; Cryptodome is what the launcher needs besides.
FROM ${ENGINE_IMAGE} AS kernel
# As it was: nobody makes the engine's own home here.
ENV HOME=/tmp
USER 0:0
COPY --from=gateway /opt/venv/lib/python3.11/site-packages/Cryptodome /opt/venv/lib/python3.11/site-packages/Cryptodome
COPY --from=source /source/etc/kernel-launchers/python /usr/local/bin/kernel-launchers/python
COPY --from=source /source/etc/kernel-launchers/bootstrap/bootstrap-kernel.sh /usr/local/bin/bootstrap-kernel.sh
RUN chmod 755 /usr/local/bin/bootstrap-kernel.sh
ENV KERNEL_LANGUAGE=python
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/bootstrap-kernel.sh"]
