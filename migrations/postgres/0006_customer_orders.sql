-- The projection `customer_orders`: one row per order, by which customers are summed up. It is built
-- from the start of the log by the projector, while the other projection stays as it is.

create table customer_orders (
    order_id        uuid primary key,
    customer_id     text not null,
    -- Empty for an order of no tenant.
    tenant          text not null,
    status          text not null,
    total_quantity  bigint not null,
    received_at     timestamptz,
    -- The last failure, also if the order was fulfilled later.
    failed_at       timestamptz,
    failure_stage   text,
    failure_code    text,
    revision        bigint not null,
    -- The order's place in time, also if the time of its receipt is unknown.
    listed_at       timestamptz not null
        generated always as (coalesce(received_at, timestamptz 'epoch')) stored
);

create index customer_orders_by_time on customer_orders (listed_at, order_id);
create index customer_orders_by_customer
    on customer_orders (customer_id, tenant, listed_at, order_id, status, total_quantity);
create index customer_orders_by_failure
    on customer_orders (customer_id, failed_at, order_id) where failed_at is not null;

-- The version of the projection that built the tables of a set.
alter table projection_checkpoints add column projection_version bigint not null default 1;

insert into projection_checkpoints (name) values ('customer_orders');
