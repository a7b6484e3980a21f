# The server in an environment of its own (guard 2 of the packaging): no other packages beside ours.
FROM python:3.11-slim AS build
RUN python -m venv /opt/quorumlog
ENV PATH=/opt/quorumlog/bin:$PATH
WORKDIR /src
COPY requirements-server.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-server.lock
COPY . .
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps ./client .

FROM python:3.11-slim
COPY --from=build /opt/quorumlog /opt/quorumlog
ENV PATH=/opt/quorumlog/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --home-dir /data quorumlog && install -d -o quorumlog /data
USER quorumlog
WORKDIR /data
VOLUME /data
EXPOSE 7171 7172 7173
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('QUORUMLOG_NODE__HTTP_PORT', '7171') + '/health', timeout=2)"]
ENTRYPOINT ["quorumlog"]
CMD ["node", "--config", "/etc/quorumlog/cluster.toml"]
