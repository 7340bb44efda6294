-- Least-privilege roles for a read model in PostgreSQL. Run once, as a superuser, in the read model's
-- empty database, before the first `dofs migrate`:
--
--     psql -d dofs -f scripts/postgres-roles.sql
--     psql -d dofs -c "alter role dofs_owner password '...'"       and so on for the others
--
-- dofs_owner      creates and changes tables: `dofs migrate`, `dofs projections rebuild|rollback`
-- dofs_projector  reads and writes rows: `dofs serve projector`, `dofs projections verify --repair`
-- dofs_api        reads rows: `dofs serve api`

create role dofs_owner login;
create role dofs_projector login;
create role dofs_api login;

-- Other roles get no access to the schema.
revoke all on schema public from public;
grant usage, create on schema public to dofs_owner;
grant usage on schema public to dofs_projector, dofs_api;

-- A rebuild creates schemas for the tables beside the live ones. Other roles cannot connect.
do $$ begin
    execute format('revoke all on database %I from public', current_database());
    execute format('grant connect, create on database %I to dofs_owner', current_database());
    execute format('grant connect on database %I to dofs_projector, dofs_api', current_database());
end $$;

-- Privileges on all tables of the owner, in any schema: a swap moves rebuilt tables to the live schema.
alter default privileges for role dofs_owner
    grant select, insert, update, delete on tables to dofs_projector;
alter default privileges for role dofs_owner
    grant select on tables to dofs_api;
