-- Times from the receipt of an order to its first end, of the orders that ended in a minute. Null in
-- minutes that an earlier release has counted.

alter table projection_minutes add column n_completed integer;
-- Sum and maximum in microseconds.
alter table projection_minutes add column total_completion_us integer;
alter table projection_minutes add column max_completion_us integer;
