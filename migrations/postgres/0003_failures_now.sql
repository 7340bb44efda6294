-- What has failed and is not resolved, found without the rows of what is: those only grow in number.

create index failures_now_by_time on failed_orders (failed_at, order_id)
    where resolved_at is null;
create index failures_now_by_code on failed_orders (stage, code, failed_at, order_id)
    where resolved_at is null;
