-- What the projector's last own verification of the tables came to; null before the first.

alter table projection_checkpoints add column verified_at integer;
alter table projection_checkpoints add column verified_orders integer not null default 0;
-- Orders that differed, events that cannot be projected, and statistics that were off.
alter table projection_checkpoints add column verify_findings integer not null default 0;
