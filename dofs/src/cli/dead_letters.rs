//! Arguments of `dofs dead-letters`.

use api_types::{Age, FailureStage};
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::order::parse_item;
use super::{Actor, Api};

/// Names of the arguments of [`BulkSelection`].
const BULK_SELECTION: [&str; 6] = ["all", "stage", "code", "customer", "older_than", "orders"];

#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    pub(crate) command: DeadLettersCommand,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Count dead letters by cause and list them, newest first
    List {
        #[command(flatten)]
        filter: FailureFilter,
        /// Maximum number of rows
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
    },
    /// Show every attempt and delivery of a failed order, and what to do next
    Show {
        /// Id of the order
        id: Uuid,
    },
    /// Queue failed orders again: one order, optionally corrected, or many orders as a task
    Redrive(Redrive),
    /// List, show, watch and cancel bulk redrives
    Redrives {
        #[command(subcommand)]
        command: Option<RedrivesCommand>,
    },
    /// Discard a dead letter: the order stays failed and is no longer listed
    Discard {
        /// Id of the order
        id: Uuid,
        /// Reason to record in the audit trail
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        actor: Actor,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum RedrivesCommand {
    /// List bulk redrives, newest first
    List,
    /// Show the progress of a bulk redrive
    Show {
        /// Id of the task
        task: Uuid,
    },
    /// Follow a bulk redrive until it ends
    Watch {
        /// Id of the task
        task: Uuid,
    },
    /// Cancel a bulk redrive; orders that it has queued stay queued
    Cancel {
        /// Id of the task
        task: Uuid,
        #[command(flatten)]
        actor: Actor,
    },
}

/// Filter of failed orders.
#[derive(Debug, Args)]
pub(crate) struct FailureFilter {
    /// Only orders that failed at this stage: `validation`, `fulfillment` or `dead_letter` [default:
    /// `dead_letter`]
    #[arg(long, value_parser = parse_stage)]
    pub(crate) stage: Option<FailureStage>,
    /// Only orders with this failure code, e.g. `retries_exhausted`
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// Only orders of this customer
    #[arg(long, value_name = "ID")]
    pub(crate) customer: Option<String>,
    /// Only orders that failed longer ago than this, e.g. `15m`, `36h` or `2d`
    #[arg(long, value_name = "AGE")]
    pub(crate) older_than: Option<Age>,
}

impl From<FailureFilter> for api_types::FailureFilter {
    fn from(filter: FailureFilter) -> Self {
        let FailureFilter { stage, code, customer, older_than } = filter;
        Self { stage, code, customer_id: customer, older_than, order_ids: None }
    }
}

#[derive(Debug, Args)]
#[command(override_usage = "dofs dead-letters redrive [OPTIONS] ID
       dofs dead-letters redrive [OPTIONS] --all
       dofs dead-letters redrive [OPTIONS] --stage|--code|--customer|--older-than|--order ...")]
pub(crate) struct Redrive {
    /// Id of the one order to redrive
    #[arg(required_unless_present_any = BULK_SELECTION, conflicts_with_all = BULK_SELECTION)]
    pub(crate) id: Option<Uuid>,
    /// Reason to record in the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) actor: Actor,
    #[command(flatten)]
    pub(crate) correction: Correction,
    #[command(flatten)]
    pub(crate) selection: BulkSelection,
    #[command(flatten)]
    pub(crate) bulk: BulkOptions,
}

/// Corrections of the one order.
#[derive(Debug, Args)]
#[command(next_help_heading = "One order")]
pub(crate) struct Correction {
    /// Redrive only if the order is at this revision, as printed by `show`
    #[arg(long, value_name = "REVISION", conflicts_with_all = BULK_SELECTION)]
    pub(crate) if_match: Option<u64>,
    /// Corrected customer of the order
    #[arg(long, value_name = "ID", conflicts_with_all = BULK_SELECTION)]
    pub(crate) customer_id: Option<String>,
    /// Corrected order line, replacing all existing lines; may be repeated
    #[arg(long = "item", value_name = "PRODUCT:QUANTITY", conflicts_with_all = BULK_SELECTION, value_parser = parse_item)]
    pub(crate) items: Vec<(String, u64)>,
}

/// Selection of the orders of a bulk redrive.
#[derive(Debug, Args)]
#[command(next_help_heading = "Many orders")]
pub(crate) struct BulkSelection {
    /// Redrive every dead letter
    #[arg(long, conflicts_with_all = &BULK_SELECTION[1..])]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: FailureFilter,
    /// Redrive this order, at whichever stage it failed; may be repeated
    #[arg(long = "order", value_name = "ID")]
    pub(crate) orders: Vec<Uuid>,
}

/// Options of a bulk redrive.
#[derive(Debug, Args)]
pub(crate) struct BulkOptions {
    /// Maximum number of orders to redrive per second
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "id", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Print what would happen to each order and why, without redriving any
    #[arg(long, conflicts_with_all = ["id", "detach"])]
    pub(crate) dry_run: bool,
    /// Start the redrive without waiting for its end
    #[arg(long, conflicts_with = "id")]
    pub(crate) detach: bool,
    /// Skip the confirmation
    #[arg(long)]
    pub(crate) yes: bool,
}

fn parse_stage(text: &str) -> Result<FailureStage, String> {
    FailureStage::from_name(&text.replace('-', "_"))
        .ok_or_else(|| "use validation, fulfillment or dead_letter".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;

    use crate::cli::{Cli, Command};

    use super::*;

    const ID: &str = "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33";

    fn parse_arguments(arguments: &str) -> Result<DeadLetters, ErrorKind> {
        let words = arguments.split(' ');
        let cli = Cli::try_parse_from(["dofs", "dead-letters"].into_iter().chain(words));
        let Command::DeadLetters(parsed) = cli.map_err(|error| error.kind())?.command else {
            panic!("{arguments}: parsed as another command");
        };
        Ok(parsed)
    }

    #[test]
    fn redrive_takes_either_one_order_or_a_bulk_selection() {
        for valid in [
            format!("redrive {ID}"),
            format!("redrive {ID} --if-match 7 --customer-id cust-2 --item a:1 --item b:2"),
            "redrive --all --rate 50 --detach".to_owned(),
            "redrive --code poison --stage dead-letter --older-than 36h --dry-run".to_owned(),
            format!("redrive --customer cust-1 --order {ID} --reason r --actor a"),
        ] {
            assert!(parse_arguments(&valid).is_ok(), "{valid}: {:?}", parse_arguments(&valid));
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
        for arguments in conflicts {
            let error = parse_arguments(&arguments).err();
            assert_eq!(error, Some(ErrorKind::ArgumentConflict), "{arguments}");
        }
        for missing in ["redrive", "redrive --reason r", "redrive --rate 5", "discard"] {
            let error = parse_arguments(missing).err();
            assert_eq!(error, Some(ErrorKind::MissingRequiredArgument), "{missing}");
        }
    }

    #[test]
    fn invalid_argument_values_are_rejected() {
        for arguments in [
            "list --older-than soon",
            "list --stage poison",
            "list --limit 0",
            "show 42",
            "redrive --all --rate 0",
            "redrives show 42",
        ] {
            let error = parse_arguments(arguments).err();
            assert_eq!(error, Some(ErrorKind::ValueValidation), "{arguments}");
        }
    }
}
