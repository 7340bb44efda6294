//! `dofs node users`: maintains the users file of the embedded event store.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use event_node::{UserSummary, UsersFile, UsersFileError};
use serde_json::json;

use crate::cli::{Global, UsersCommand};
use crate::error::{CliError, UsersError};
use crate::output::{confirm_action, format_table, print_json_or_text};
use crate::settings;

pub(super) fn run(
    command: &UsersCommand,
    file: Option<&str>,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let settings = settings::load(global, &[("--file", "node", "users", file)])?;
    if !settings.node.has_users() {
        return Err(UsersError::NoFile.into());
    }
    let path = Path::new(&settings.node.users);
    match command {
        UsersCommand::Add { name, groups } => {
            let mut file = UsersFile::open_or_new(path).map_err(UsersError::File)?;
            let password = read_password()?;
            change_file(&mut file, |file| file.add_user(name, groups.clone(), &password))?;
            print_user(name, "added", global)?;
        }
        UsersCommand::List => {
            let file = UsersFile::open(path).map_err(UsersError::File)?;
            print_users(&file.list_users(), global)?;
        }
        UsersCommand::Remove { name, yes } => {
            let mut file = UsersFile::open(path).map_err(UsersError::File)?;
            confirm_action(&format!("Remove user {name}?"), *yes)?;
            change_file(&mut file, |file| file.remove_user(name))?;
            print_user(name, "removed", global)?;
        }
        UsersCommand::Password { name } => {
            let mut file = UsersFile::open(path).map_err(UsersError::File)?;
            let password = read_password()?;
            change_file(&mut file, |file| file.set_password(name, &password))?;
            print_user(name, "changed", global)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Changes the users and saves the file.
fn change_file(
    file: &mut UsersFile,
    change: impl FnOnce(&mut UsersFile) -> Result<(), UsersFileError>,
) -> Result<(), UsersError> {
    change(file)?;
    Ok(file.save()?)
}

/// Reads a password: twice without echo from a terminal, otherwise the first line of standard input.
/// A flag or an environment variable would show the password to other processes.
fn read_password() -> Result<String, UsersError> {
    let unreadable = UsersError::UnreadablePassword;
    if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ").map_err(unreadable)?;
        let repeated = rpassword::prompt_password("Repeat: ").map_err(unreadable)?;
        let is_repeated = password == repeated;
        return is_repeated.then_some(password).ok_or(UsersError::DifferentPasswords);
    }
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(unreadable)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn print_user(name: &str, outcome: &str, global: &Global) -> Result<(), CliError> {
    let text = format!("user {name} {outcome}");
    print_json_or_text(global, json!({"user": name, "outcome": outcome}), text)
}

fn print_users(users: &[UserSummary], global: &Global) -> Result<(), CliError> {
    let rows = users.iter().map(|user| [user.name.clone(), user.groups.join(", ")]);
    print_json_or_text(global, json!({"users": users}), format_table(&["user", "groups"], rows))
}
