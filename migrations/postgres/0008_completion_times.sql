-- Times from the receipt of an order to its first end, of the orders that ended in a minute. Null in
-- minutes that an earlier release has counted.

alter table projection_minutes
    add column n_completed          bigint,
    -- Sum and maximum in microseconds.
    add column total_completion_us  bigint,
    add column max_completion_us    bigint;
