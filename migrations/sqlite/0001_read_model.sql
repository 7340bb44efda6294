-- The read model: one row per order, one per order that ever failed, and how far the projection
-- has come.
--
-- Times are microseconds since 1970. Ids are their 16 bytes. Whole numbers are the 64 bits of an
-- unsigned number: beyond 2^63 - 1 they show as negative. The tables keep their rowid, so that
-- new rows go to the end whatever their id is; only the index on the id is random.

create table orders (
    order_id        blob not null primary key,
    customer_id     text not null,
    items           text not null,
    total_quantity  integer not null,
    status          text not null,
    stage           text,
    attempt         integer not null,
    deliveries      integer not null,
    failure_code    text,
    failure_reason  text,
    reference       text,
    revision        integer not null,
    received_at     integer,
    queued_at       integer,
    fulfilled_at    integer,
    failed_at       integer,
    updated_at      integer not null,
    -- Where the order stands in lists, also if nobody knows when it was received.
    listed_at       integer not null generated always as (coalesce(received_at, 0)) virtual
) strict;

create index orders_by_time on orders (listed_at, order_id);
create index orders_by_status on orders (status, listed_at, order_id);
create index orders_by_customer on orders (customer_id, listed_at, order_id);
create index orders_processing_by_age on orders (updated_at) where status = 'PROCESSING';

create table failed_orders (
    order_id        blob not null primary key,
    stage           text not null,
    code            text not null,
    reason          text not null,
    attempt         integer not null,
    deliveries      integer not null,
    failed_at       integer not null,
    -- The order as it was when it failed.
    "order"         text not null,
    resolved_at     integer,
    -- The revision of the event that last changed the row.
    revision        integer not null
) strict;

create index failed_orders_by_time on failed_orders (failed_at, order_id);

create table projection_checkpoints (
    name             text not null primary key,
    commit_position  integer,
    prepare_position integer,
    epoch            integer not null default 0,
    events_applied   integer not null default 0,
    -- Events that the projection could not read and passed over.
    events_skipped   integer not null default 0,
    last_event_at    integer,
    -- When the projector last moved the position, by its own clock.
    moved_at         integer,
    check ((commit_position is null) = (prepare_position is null))
) strict;

insert into projection_checkpoints (name) values ('orders');
