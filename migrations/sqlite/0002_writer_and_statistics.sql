-- Who keeps the read model, which event store it comes from, and statistics that need no scan.

-- Who moves the position; null if nobody does. Whoever takes over raises the epoch.
alter table projection_checkpoints add column holder text;
-- Goes up while the holder lives.
alter table projection_checkpoints add column beat integer not null default 0;
-- The first event of any order in the event store: tells one store from another.
alter table projection_checkpoints add column first_event_id blob;
-- The migration that the tables of this set were made under; null for the live set, whose tables
-- every migration changes.
alter table projection_checkpoints add column schema_version integer;
-- When a set was put aside.
alter table projection_checkpoints add column retired_at integer;

-- How many orders there are, by what became of them. `stage` is empty for those that did not fail.
create table projection_counts (
    name      text not null,
    status    text not null,
    stage     text not null,
    n_orders  integer not null,
    primary key (name, status, stage)
) strict, without rowid;

insert into projection_counts (name, status, stage, n_orders)
    select 'orders', status, coalesce(stage, ''), count(*) from orders group by 2, 3;

-- What happened in each of the last minutes. `minute` counts from 1970.
create table projection_minutes (
    name         text not null,
    minute       integer not null,
    n_events     integer not null,
    n_received   integer not null,
    n_fulfilled  integer not null,
    n_failed     integer not null,
    -- Those of the failed that the gateway refused.
    n_refused    integer not null,
    primary key (name, minute)
) strict, without rowid;
