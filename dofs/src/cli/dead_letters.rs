//! `dofs dead-letters` on the command line.

use api_types::Age;
use clap::{Args, Subcommand};
use domain::order::Stage;
use uuid::Uuid;

use super::{Actor, Api, item};

/// The arguments of [`Which`].
const WHICH: [&str; 6] = ["all", "stage", "code", "customer", "older_than", "orders"];

#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    pub(crate) command: DeadLettersCommand,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Count dead letters by their cause, and list them, newest first
    List {
        #[command(flatten)]
        failures: Failures,
        /// At most this many rows
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
    },
    /// Show all that was tried with a failed order, and what to do next
    Show {
        /// The order's id
        id: Uuid,
    },
    /// Queue failed orders again: one, corrected or as it is, or many, as a task
    Redrive(Redrive),
    /// Show, follow and cancel redrives of many orders
    Redrives {
        #[command(subcommand)]
        command: Option<RedrivesCommand>,
    },
    /// Give up on a dead letter: it stays failed, and is no longer listed
    Discard {
        /// The order's id
        id: Uuid,
        /// Why, for the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        actor: Actor,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum RedrivesCommand {
    /// List redrives, newest first
    List,
    /// Show how far a redrive has come
    Show {
        /// The task's id
        task: Uuid,
    },
    /// Follow a redrive to its end
    Watch {
        /// The task's id
        task: Uuid,
    },
    /// Stop a redrive; what it has queued stays queued
    Cancel {
        /// The task's id
        task: Uuid,
        #[command(flatten)]
        actor: Actor,
    },
}

/// Which failures are meant.
#[derive(Debug, Args)]
pub(crate) struct Failures {
    /// Those of another stage: validation or fulfillment [default: `dead_letter`]
    #[arg(long, value_parser = stage)]
    pub(crate) stage: Option<Stage>,
    /// Those of this code, e.g. `retries_exhausted`
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// Those of this customer
    #[arg(long, value_name = "ID")]
    pub(crate) customer: Option<String>,
    /// Those that failed longer ago than this, e.g. `15m`, `36h` or `2d`
    #[arg(long, value_name = "AGE")]
    pub(crate) older_than: Option<Age>,
}

#[derive(Debug, Args)]
#[command(override_usage = "dofs dead-letters redrive [OPTIONS] ID
       dofs dead-letters redrive [OPTIONS] --all
       dofs dead-letters redrive [OPTIONS] --stage|--code|--customer|--older-than|--order ...")]
pub(crate) struct Redrive {
    /// The one order to redrive
    #[arg(required_unless_present_any = WHICH, conflicts_with_all = WHICH)]
    pub(crate) id: Option<Uuid>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) actor: Actor,
    #[command(flatten)]
    pub(crate) correction: Correction,
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) many: Many,
}

/// What the one order should have said.
#[derive(Debug, Args)]
#[command(next_help_heading = "One order")]
pub(crate) struct Correction {
    /// Only if the order is at this revision, which `show` tells
    #[arg(long, value_name = "REVISION", conflicts_with_all = WHICH)]
    pub(crate) if_match: Option<u64>,
    /// The customer that the order should have named
    #[arg(long, value_name = "ID", conflicts_with_all = WHICH)]
    pub(crate) customer_id: Option<String>,
    /// A line that the order should have had, instead of all it has; may be repeated
    #[arg(long = "item", value_name = "PRODUCT:QUANTITY", conflicts_with_all = WHICH, value_parser = item)]
    pub(crate) items: Vec<(String, u64)>,
}

/// Which orders, if it is not one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Many orders")]
pub(crate) struct Which {
    /// Every dead letter
    #[arg(long, conflicts_with_all = &WHICH[1..])]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) failures: Failures,
    /// This order, whatever stage it failed at; may be repeated
    #[arg(long = "order", value_name = "ID")]
    pub(crate) orders: Vec<Uuid>,
}

/// How many orders are redriven.
#[derive(Debug, Args)]
pub(crate) struct Many {
    /// At most this many orders per second
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "id", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Say for each order what would happen and why, and do nothing
    #[arg(long, conflicts_with_all = ["id", "detach"])]
    pub(crate) dry_run: bool,
    /// Begin, and do not wait for the end
    #[arg(long, conflicts_with = "id")]
    pub(crate) detach: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

fn stage(text: &str) -> Result<Stage, String> {
    Stage::from_name(&text.replace('-', "_"))
        .ok_or_else(|| "use validation, fulfillment or dead_letter".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;

    use crate::cli::{Cli, Command};

    use super::*;

    const ID: &str = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";

    fn parsed(arguments: &str) -> Result<DeadLetters, ErrorKind> {
        let words = arguments.split(' ');
        let cli = Cli::try_parse_from(["dofs", "dead-letters"].into_iter().chain(words));
        let Command::DeadLetters(parsed) = cli.map_err(|it| it.kind())?.command else {
            panic!("{arguments}: another command");
        };
        Ok(parsed)
    }

    #[test]
    fn redrive_is_of_one_order_or_of_many_and_never_of_none_or_both() {
        for fine in [
            format!("redrive {ID}"),
            format!("redrive {ID} --if-match 7 --customer-id cust-2 --item a:1 --item b:2"),
            "redrive --all --rate 50 --detach".to_owned(),
            "redrive --code poison --stage dead-letter --older-than 36h --dry-run".to_owned(),
            format!("redrive --customer cust-1 --order {ID} --reason r --actor a"),
        ] {
            assert!(parsed(&fine).is_ok(), "{fine}: {:?}", parsed(&fine));
        }
        let conflicts = [
            format!("redrive {ID} --all"),
            format!("redrive {ID} --code poison"),
            format!("redrive {ID} --dry-run"),
            format!("redrive {ID} --rate 5"),
            "redrive --all --code poison".to_owned(),
            "redrive --all --dry-run --detach".to_owned(),
            "redrive --all --item a:1".to_owned(),
            "redrive --code poison --if-match 7".to_owned(),
        ];
        for wrong in conflicts {
            assert_eq!(parsed(&wrong).err(), Some(ErrorKind::ArgumentConflict), "{wrong}");
        }
        for missing in ["redrive", "redrive --reason r", "redrive --rate 5", "discard"] {
            let error = parsed(missing).err();
            assert_eq!(error, Some(ErrorKind::MissingRequiredArgument), "{missing}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            "list --older-than soon",
            "list --stage poison",
            "list --limit 0",
            "show 42",
            "redrive --all --rate 0",
            "redrives show 42",
        ] {
            assert_eq!(parsed(wrong).err(), Some(ErrorKind::ValueValidation), "{wrong}");
        }
    }
}
