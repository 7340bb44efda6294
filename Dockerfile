# One image for every role: `dofs serve api`, `dofs serve worker`, `dofs serve projector`,
# `dofs migrate`. Configuration comes by DOFS__SECTION__KEY; the defaults are compiled in.

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
# The caches keep downloaded and compiled dependencies from one build to the next; the binary has
# to be copied out of them to be in the layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --package dofs && \
    cp target/release/dofs /usr/local/bin/dofs

FROM debian:bookworm-slim
RUN groupadd --system --gid 10001 dofs && \
    useradd --system --uid 10001 --gid dofs --no-create-home --shell /usr/sbin/nologin dofs && \
    install --directory --owner=dofs --group=dofs /var/lib/dofs
# For TLS to an event store.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/local/bin/dofs /usr/local/bin/
USER 10001:10001
WORKDIR /var/lib/dofs
EXPOSE 8080
# Drains: no new requests or deliveries, what is in progress ends.
STOPSIGNAL SIGTERM
ENTRYPOINT ["dofs"]
