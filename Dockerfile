# One image for every role: `dofs serve api`, `dofs serve worker`, `dofs serve projector`,
# `dofs migrate`. DOFS__SECTION__KEY variables configure it; the defaults are compiled in.

FROM rust:1.95-bookworm AS build
WORKDIR /build
# Commit that `dofs version` names: the build context has no repository.
ARG DOFS_COMMIT
COPY . .
# The caches keep downloaded and compiled dependencies between builds. Cache mounts are not part of the
# layer, so the binary is copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --package dofs && \
    cp target/release/dofs /usr/local/bin/dofs

FROM debian:bookworm-slim
RUN groupadd --system --gid 10001 dofs && \
    useradd --system --uid 10001 --gid dofs --no-create-home --shell /usr/sbin/nologin dofs && \
    install --directory --owner=dofs --group=dofs /var/lib/dofs
# Root certificates for TLS to the event store and the gateway.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/local/bin/dofs /usr/local/bin/
USER 10001:10001
WORKDIR /var/lib/dofs
EXPOSE 8080
# SIGTERM drains: no new requests or deliveries, and work in progress finishes.
STOPSIGNAL SIGTERM
ENTRYPOINT ["dofs"]
