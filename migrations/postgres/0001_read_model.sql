-- The read model: one row per order, one per order that ever failed, and how far the projection
-- has come.
--
-- Whole numbers are the 64 bits of an unsigned number: beyond 2^63 - 1 they show as negative.
-- Documents are json and not jsonb: they read back exactly as they were written, the order of
-- their members included, and nothing that an order may hold is refused.

create table orders (
    order_id        uuid primary key,
    customer_id     text not null,
    items           json not null,
    total_quantity  bigint not null,
    status          text not null,
    stage           text,
    attempt         bigint not null,
    deliveries      bigint not null,
    failure_code    text,
    failure_reason  text,
    reference       text,
    revision        bigint not null,
    received_at     timestamptz,
    queued_at       timestamptz,
    fulfilled_at    timestamptz,
    failed_at       timestamptz,
    updated_at      timestamptz not null,
    -- Where the order stands in lists, also if nobody knows when it was received.
    listed_at       timestamptz not null
        generated always as (coalesce(received_at, timestamptz 'epoch')) stored
);

create index orders_by_time on orders (listed_at, order_id);
create index orders_by_status on orders (status, listed_at, order_id);
create index orders_by_customer on orders (customer_id, listed_at, order_id);
create index orders_processing_by_age on orders (updated_at) where status = 'PROCESSING';

create table failed_orders (
    order_id        uuid primary key,
    stage           text not null,
    code            text not null,
    reason          text not null,
    attempt         bigint not null,
    deliveries      bigint not null,
    failed_at       timestamptz not null,
    -- The order as it was when it failed.
    "order"         json not null,
    resolved_at     timestamptz,
    -- The revision of the event that last changed the row.
    revision        bigint not null
);

create index failed_orders_by_time on failed_orders (failed_at, order_id);

create table projection_checkpoints (
    name             text primary key,
    commit_position  bigint,
    prepare_position bigint,
    epoch            bigint not null default 0,
    events_applied   bigint not null default 0,
    -- Events that the projection could not read and passed over.
    events_skipped   bigint not null default 0,
    last_event_at    timestamptz,
    -- When the projector last moved the position, by its own clock.
    moved_at         timestamptz,
    check ((commit_position is null) = (prepare_position is null))
);

insert into projection_checkpoints (name) values ('orders');
