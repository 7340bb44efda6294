-- Which releases work with this schema, and which version of a projection has written its tables.

-- By the version of a migration, the oldest schema whose release works with a database that has had the
-- migration. `dofs migrate` writes the rows.
create table schema_compatibility (
    version     integer not null primary key,
    works_with  integer not null
) strict;

-- The newest version of the projection whose projector has written the tables; null for the version that
-- built them. An older projector does not write.
alter table projection_checkpoints add column writer_version integer;
