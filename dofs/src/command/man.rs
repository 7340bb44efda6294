//! `dofs man`: prints the manual page, or writes the pages of all commands.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_mangen::{Man, generate_to};

use crate::cli::{self, Cli, Global};
use crate::error::CliError;
use crate::output::{print_notice, print_result};

pub(crate) fn run(arguments: &cli::Man, global: &Global) -> Result<ExitCode, CliError> {
    match &arguments.out {
        Some(folder) => {
            write_pages(folder).map_err(|source| CliError::Folder {
                path: folder.display().to_string(),
                source,
            })?;
            if !global.quiet {
                print_notice(format!(
                    "Manual pages written; show one: man {}/dofs.1",
                    folder.display()
                ));
            }
        }
        None => print_result(render_page().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn render_page() -> String {
    let mut page = Vec::new();
    // Writing to memory cannot fail.
    drop(Man::new(Cli::command()).render(&mut page));
    String::from_utf8_lossy(&page).into_owned()
}

fn write_pages(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    generate_to(Cli::command(), folder)
}
