-- Whose orders are, for those that are somebody's. It never changes, so it stands beside the orders
-- and not in them.

create table order_tenants (
    order_id  uuid primary key,
    tenant    text not null
);

create index order_tenants_by_tenant on order_tenants (tenant, order_id);
