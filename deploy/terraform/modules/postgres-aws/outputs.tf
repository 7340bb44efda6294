output "address" {
  description = "Host name and port of the database."
  value       = aws_db_instance.dofs.endpoint
}

output "administrator_secret" {
  description = "Secret with the administrator's name and password."
  value       = aws_db_instance.dofs.master_user_secret[0].secret_arn
}
