-- Operators' actions on single orders: redrives and discards. Rows are only added. The projection `orders`
-- adds the actions from here on; `dofs projections rebuild` adds the earlier ones.

create table operator_actions (
    order_id  uuid not null,
    -- The event that records the action.
    event_id  uuid not null,
    acted_at  timestamptz not null,
    -- `redriven` or `discarded`.
    kind      text not null,
    actor     text not null,
    reason    text,
    attempt   bigint not null,
    primary key (order_id, event_id)
);

create index operator_actions_by_time on operator_actions (acted_at, event_id);
create index operator_actions_by_actor on operator_actions (actor, acted_at, event_id);

-- Tables that are still empty need no rebuild for it.
update projection_checkpoints set projection_version = 2
    where name = 'orders' and commit_position is null;
