# Casemate's container images. `make image` builds the CPU one twice, without a network, and compares; see docs/building.md.
#
#   BASE     image of the base file system, pinned by its digest: NAME@sha256:…
#   target   casemate-cpu, or casemate-cuda with frozen kernels
#
# What comes in: image/wheels-*.lock names every wheel by SHA-256. What is in the final stages: an interpreter, libraries, our code.
# No shell, no compiler, no package manager; not root; nothing is written outside /var/lib/casemate and /tmp.
ARG BASE
FROM ${BASE} AS base

FROM base AS install-cpu
COPY image/wheels-cpu.lock /build/wheels.lock
COPY .cache/image/wheels/ /build/wheels/
COPY .cache/image/own/ /build/own/
RUN ["/usr/bin/python3.11", "/build/wheels/pip-26.0.1-py3-none-any.whl/pip", "install", "--no-index", "-f", "/build/wheels", "--require-hashes", "--no-deps", "--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--root-user-action", "ignore", "--target", "/opt/casemate/lib", "--requirement", "/build/wheels.lock"]
RUN ["/usr/bin/python3.11", "/build/wheels/pip-26.0.1-py3-none-any.whl/pip", "install", "--no-index", "-f", "/build/own", "--no-deps", "--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--root-user-action", "ignore", "--target", "/opt/casemate/lib", "casemate"]

FROM base AS install-cuda
COPY image/wheels-cuda.lock /build/wheels.lock
COPY .cache/image/wheels-cuda/ /build/wheels/
COPY .cache/image/own/ /build/own/
RUN ["/usr/bin/python3.11", "/build/wheels/pip-26.0.1-py3-none-any.whl/pip", "install", "--no-index", "-f", "/build/wheels", "--require-hashes", "--no-deps", "--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--root-user-action", "ignore", "--target", "/opt/casemate/lib", "--requirement", "/build/wheels.lock"]
RUN ["/usr/bin/python3.11", "/build/wheels/pip-26.0.1-py3-none-any.whl/pip", "install", "--no-index", "-f", "/build/own", "--no-deps", "--no-compile", "--no-cache-dir", "--disable-pip-version-check", "--root-user-action", "ignore", "--target", "/opt/casemate/lib", "casemate"]

FROM scratch AS casemate-cpu
COPY --from=base / /
COPY --from=install-cpu /opt/casemate/ /opt/casemate/
ENV PYTHONPATH=/opt/casemate/lib PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /var/lib/casemate
EXPOSE 8443 8444
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/python3.11", "-m", "appliance.cli.main"]
CMD ["serve", "--config", "/etc/casemate/casemate.toml"]

FROM scratch AS casemate-cuda
COPY --from=base / /
COPY --from=install-cuda /opt/casemate/ /opt/casemate/
COPY .cache/image/kernels/ /opt/casemate/kernels/
ENV PYTHONPATH=/opt/casemate/lib PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /var/lib/casemate
EXPOSE 8443 8444
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/python3.11", "-m", "appliance.cli.main"]
CMD ["serve", "--config", "/etc/casemate/casemate.toml"]
