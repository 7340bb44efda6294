-- What the projector's last own verification of the tables came to; null before the first.

alter table projection_checkpoints
    add column verified_at     timestamptz,
    add column verified_orders bigint not null default 0,
    -- Orders that differed, events that cannot be projected, and statistics that were off.
    add column verify_findings bigint not null default 0;
