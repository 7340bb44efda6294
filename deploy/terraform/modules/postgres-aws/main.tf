# PostgreSQL for the read model. scripts/postgres-roles.sql creates the roles of DOFS in it.

resource "aws_db_subnet_group" "dofs" {
  name       = var.name
  subnet_ids = var.subnet_ids
}

resource "aws_db_parameter_group" "dofs" {
  name_prefix = "${var.name}-"
  family      = "postgres17"

  # Connections without TLS are refused.
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_db_instance" "dofs" {
  identifier     = var.name
  engine         = "postgres"
  engine_version = "17"
  instance_class = var.instance_class
  multi_az       = var.multi_az
  db_name        = "dofs"

  # AWS creates and rotates the administrator's password; the state does not contain it.
  username                    = "dofs_admin"
  manage_master_user_password = true

  storage_type          = "gp3"
  storage_encrypted     = true
  allocated_storage     = var.disk_gib
  max_allocated_storage = var.disk_gib * 4

  db_subnet_group_name   = aws_db_subnet_group.dofs.name
  vpc_security_group_ids = var.security_group_ids
  publicly_accessible    = false
  parameter_group_name   = aws_db_parameter_group.dofs.name

  # The read model can be rebuilt from the events; a backup saves the time of the rebuild.
  backup_retention_period    = 7
  auto_minor_version_upgrade = true
  deletion_protection        = var.deletion_protection
  skip_final_snapshot        = !var.deletion_protection
  final_snapshot_identifier  = var.deletion_protection ? "${var.name}-final" : null
}
