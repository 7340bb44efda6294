-- Which releases work with this schema, and which version of a projection has written its tables.

-- By the version of a migration, the oldest schema whose release works with a database that has had the
-- migration. `dofs migrate` writes the rows.
create table schema_compatibility (
    version     bigint primary key,
    works_with  bigint not null
);

-- The newest version of the projection whose projector has written the tables; null for the version that
-- built them. An older projector does not write.
alter table projection_checkpoints add column writer_version bigint;
