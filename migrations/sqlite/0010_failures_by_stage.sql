-- The newest failures of a stage: the list of dead letters sorts nothing.
create index failures_now_by_stage on failed_orders (stage, failed_at, order_id)
    where resolved_at is null;
