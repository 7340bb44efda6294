-- Who keeps the read model, which event store it comes from, and statistics that need no scan.

alter table projection_checkpoints
    -- Who moves the position; null if nobody does. Whoever takes over raises the epoch.
    add column holder         text,
    -- Goes up while the holder lives.
    add column beat           bigint not null default 0,
    -- The first event of any order in the event store: tells one store from another.
    add column first_event_id uuid,
    -- The migration that the tables of this set were made under; null for the live set, whose
    -- tables every migration changes.
    add column schema_version bigint,
    -- When a set was put aside.
    add column retired_at     timestamptz;

-- How many orders there are, by what became of them. `stage` is empty for those that did not fail.
create table projection_counts (
    name      text not null,
    status    text not null,
    stage     text not null,
    n_orders  bigint not null,
    primary key (name, status, stage)
);

insert into projection_counts (name, status, stage, n_orders)
    select 'orders', status, coalesce(stage, ''), count(*) from orders group by 2, 3;

-- What happened in each of the last minutes. `minute` counts from 1970.
create table projection_minutes (
    name         text not null,
    minute       bigint not null,
    n_events     bigint not null,
    n_received   bigint not null,
    n_fulfilled  bigint not null,
    n_failed     bigint not null,
    -- Those of the failed that the gateway refused.
    n_refused    bigint not null,
    primary key (name, minute)
);
