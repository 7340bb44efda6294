//! `dofs projections`: shows, verifies, rebuilds and rolls back the tables of a projection. Accesses the
//! configured event store and read model directly.

mod findings;
mod progress;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use event_log::EventLog;
use projectors::{
    Begin, Checkpoint, Finding, LastVerification, Pace, ProjectionStatus, ReadModel, Rebuild,
    Repair, SetInfo, SwapAtEnd, Unfinished, Verification, Verified, projection_status,
};
use serde_json::{Value, json};
use service_kit::clock::Clock;

use crate::cli::{Global, projections as cli};
use crate::error::CliError;
use crate::output::{CHECK_FAILED, confirm_action, format_cell, format_table};
use crate::target_stores::TargetStores;
use crate::{process, settings};
use findings::print_finding;
use progress::ProgressDisplay;

/// Time over which the rate is measured.
const RATE_INTERVAL: Duration = Duration::from_secs(1);

/// Stores and clock of the commands.
struct Tools {
    log: EventLog,
    store: Arc<ReadModel>,
    clock: Clock,
}

pub(crate) async fn run(
    arguments: &cli::Projections,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let settings = settings::load(global, &[])?;
    let mut stores = TargetStores::default();
    let log = stores.open_event_log(&settings, "dofs-projections", global).await?;
    let store = settings.read_model.url.open();
    let mut projections = projectors::PROJECTIONS.into_iter();
    let named = projections.find(|projection| projection.name == arguments.projection);
    // `clap` accepts the names of projections only.
    let store = store.for_projection(named.unwrap_or(&projectors::ORDERS));
    stores.announce_read_model(&settings.read_model.url, &store, global).await?;
    let tools = Tools { log, store, clock: process::system_clock() };
    tools.store.check_schema().await?;
    match &arguments.command {
        cli::ProjectionsCommand::Status => show_status(&tools, stores, global).await,
        cli::ProjectionsCommand::Verify(arguments) => {
            verify_tables(&tools, stores, arguments, global).await
        }
        cli::ProjectionsCommand::Rebuild(arguments) if arguments.discarding.discard => {
            discard_rebuild(&tools, stores, arguments.discarding.yes, global).await
        }
        cli::ProjectionsCommand::Rebuild(arguments) => {
            rebuild_tables(&tools, stores, arguments, global).await
        }
        cli::ProjectionsCommand::Rollback(arguments) => {
            roll_back(&tools, stores, arguments, global).await
        }
    }
}

async fn show_status(
    tools: &Tools,
    stores: TargetStores,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let before = tools.store.checkpoint().await?;
    tokio::time::sleep(RATE_INTERVAL).await;
    let status = projection_status(&tools.log, &tools.store, tools.clock.now()).await?;
    let sets = tools.store.sets().await?;
    let n_projected = status.checkpoint.events_applied + status.checkpoint.events_skipped;
    let rate = n_projected.saturating_sub(before.events_applied + before.events_skipped);
    let text = status_text(&status, rate, &sets);
    stores.print(global, status_json(&status, rate, &sets), text)?;
    Ok(ExitCode::SUCCESS)
}

fn status_json(status: &ProjectionStatus, rate: u64, sets: &[SetInfo]) -> Value {
    let ProjectionStatus { checkpoint, lease, lag, ahead } = status;
    json!({
        "position": checkpoint.position.map(|position| position.commit),
        "events_applied": checkpoint.events_applied,
        "events_skipped": checkpoint.events_skipped,
        "last_event_at": checkpoint.last_event_at,
        "moved_at": checkpoint.moved_at,
        "events_per_second": rate,
        "lag_events": lag.lag_events,
        "lag_seconds": lag.lag_seconds,
        "stuck": lag.stuck,
        "ahead_of_event_store": ahead.map(|ahead| ahead.order_id),
        "ahead_events": ahead.map_or(0, |ahead| ahead.n_events),
        "advice": ahead.map(|ahead| ahead.to_string()),
        "holder": lease.holder,
        "epoch": lease.epoch,
        "sets": sets.iter().map(set_json).collect::<Vec<_>>(),
    })
}

fn set_json(set: &SetInfo) -> Value {
    json!({
        "name": set.name,
        "position": set.checkpoint.position.map(|position| position.commit),
        "events_applied": set.checkpoint.events_applied,
        "events_skipped": set.checkpoint.events_skipped,
        "schema_version": set.schema_version,
        "retired_at": set.retired_at,
    })
}

fn status_text(status: &ProjectionStatus, rate: u64, sets: &[SetInfo]) -> String {
    let ProjectionStatus { checkpoint, lease, lag, ahead } = status;
    let stuck = if lag.stuck { ", STUCK: events wait and nothing moves" } else { "" };
    let ahead = ahead.map_or_else(String::new, |ahead| format!("WARNING: {ahead}\n"));
    let rows = sets.iter().map(|set| {
        let Checkpoint { position, events_applied, events_skipped, .. } = set.checkpoint;
        let position = position.map(|position| position.commit);
        (set.name, position, events_applied, events_skipped, set.schema_version, set.retired_at)
    });
    let columns = ["set", "position", "events", "skipped", "schema", "retired at"];
    let sets = format_table(&columns, rows);
    format!(
        "{ahead}position    {}\nlag         {} events, {:.1} s{stuck}\nlast event  {}\n\
         events      {} applied, {} skipped\nrate        {rate} events/s\n\
         holder      {}, epoch {}\n\n{sets}",
        format_cell(checkpoint.position.map(|position| position.commit)),
        lag.lag_events,
        lag.lag_seconds,
        format_cell(checkpoint.last_event_at),
        checkpoint.events_applied,
        checkpoint.events_skipped,
        format_cell(&lease.holder),
        lease.epoch,
    )
}

async fn verify_tables(
    tools: &Tools,
    stores: TargetStores,
    arguments: &cli::Verify,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let scratch = tempfile::tempdir().map_err(|source| CliError::Folder {
        path: std::env::temp_dir().display().to_string(),
        source,
    })?;
    let repair = if arguments.repair { Repair::Always } else { Repair::Never };
    let verification = Verification {
        log: &tools.log,
        store: &tools.store,
        clock: &tools.clock,
        scratch: scratch.path(),
        repair,
        pace: Pace::Full,
    };
    let mut display = ProgressDisplay::new(global);
    let bar = display.bar();
    let mut printed = Ok(());
    let mut found = |finding: Finding| {
        if printed.is_ok() {
            // The bar would overwrite the line.
            printed = bar.suspend(|| print_finding(&finding, repair, global));
        }
    };
    let mut progress = |progress| display.show(progress);
    let verified = match arguments.sample {
        Some(n_orders) => verification.verify_sample(n_orders, &mut progress, &mut found).await,
        None => verification.verify_all(&mut progress, &mut found).await,
    };
    // Clears the bar before the result is printed.
    drop(display);
    let verified = verified?;
    printed?;
    print_verified(&verified, stores, global)?;
    // A repair mends everything but events that cannot be projected.
    let n_remaining = match repair {
        Repair::Always => verified.n_poison,
        Repair::Never => verified.n_findings(),
    };
    // A sample tells nothing about the other rows. Without the note, the findings of the projector's own
    // verification would be shown until the next one, a day after their repair.
    if arguments.sample.is_none() {
        let verified_at = tools.clock.now();
        let (n_orders, n_findings) = (verified.n_orders, n_remaining);
        let last = LastVerification { verified_at, n_orders, n_findings };
        tools.store.note_verification(&last).await?;
    }
    if n_remaining == 0 { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::from(CHECK_FAILED)) }
}

fn print_verified(
    verified: &Verified,
    stores: TargetStores,
    global: &Global,
) -> Result<(), CliError> {
    let Verified { n_events, n_orders, n_differing, n_mended, n_poison, n_miscounted, n_undecided } =
        *verified;
    let json = json!({
        "events": n_events,
        "orders": n_orders,
        "differing": n_differing,
        "mended": n_mended,
        "poison": n_poison,
        "miscounted": n_miscounted,
        "undecided": n_undecided,
    });
    let text = if verified.is_sound() {
        let undecided = match n_undecided {
            0 => String::new(),
            n => format!("; {n} of them cannot be verified, because their events were deleted"),
        };
        format!("sound: {n_orders} orders, as their events say{undecided}")
    } else {
        format!(
            "{n_orders} orders: {n_differing} differ, {n_mended} of them mended; {n_poison} events \
             cannot be projected; {n_miscounted} statistics are off"
        )
    };
    stores.print(global, json, text)
}

async fn rebuild_tables(
    tools: &Tools,
    stores: TargetStores,
    arguments: &cli::Rebuild,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let work = Rebuild {
        log: &tools.log,
        store: &tools.store,
        clock: &tools.clock,
        begin: if arguments.resume { Begin::WhereItStopped } else { Begin::Anew },
        at_end: if arguments.no_swap { SwapAtEnd::No } else { SwapAtEnd::Yes },
        batch_size: arguments.batch,
    };
    let mut display = ProgressDisplay::new(global);
    let bar = display.bar();
    let mut printed = Ok(());
    let mut found = |finding: Finding| {
        if printed.is_ok() {
            printed = bar.suspend(|| print_finding(&finding, Repair::Never, global));
        }
    };
    let rebuilt = work.run(&mut |progress| display.show(progress), &mut found).await;
    drop(display);
    let rebuilt = rebuilt?;
    printed?;
    let json = json!({
        "events": rebuilt.n_events,
        "live": rebuilt.is_live,
        "orders_compared": rebuilt.compared.map(|compared| compared.n_orders),
        "orders_differing": rebuilt.compared.map(|compared| compared.n_differing),
    });
    let compared = rebuilt.compared.map_or_else(
        || "the live tables were of another event store".to_owned(),
        |Verified { n_differing, n_orders, .. }| {
            format!("{n_differing} of {n_orders} orders differed in the live tables")
        },
    );
    let live = if rebuilt.is_live {
        "the new tables are live; `dofs projections rollback` takes the old ones back"
    } else {
        "the live tables are as they were; `dofs projections rebuild --resume` puts the new ones \
         in their place"
    };
    let text = format!("built from {} events; {compared}; {live}", rebuilt.n_events);
    stores.print(global, json, text)?;
    Ok(ExitCode::SUCCESS)
}

/// Drops the tables of an unfinished rebuild.
async fn discard_rebuild(
    tools: &Tools,
    stores: TargetStores,
    is_confirmed: bool,
    global: &Global,
) -> Result<ExitCode, CliError> {
    confirm_action("Drop what the unfinished rebuild has built?", is_confirmed)?;
    let was_there = tools.store.discard_next_set().await?;
    let text = if was_there {
        "the unfinished tables are dropped; the live tables are as they were"
    } else {
        "no unfinished rebuild is kept: nothing was done"
    };
    stores.print(global, json!({"discarded": was_there}), text)?;
    Ok(ExitCode::SUCCESS)
}

async fn roll_back(
    tools: &Tools,
    stores: TargetStores,
    arguments: &cli::Rollback,
    global: &Global,
) -> Result<ExitCode, CliError> {
    confirm_action("Make the tables live again that the last rebuild replaced?", arguments.yes)?;
    let unfinished = if arguments.discard { Unfinished::Discard } else { Unfinished::Refuse };
    tools.store.roll_back(unfinished, tools.clock.now()).await?;
    let sets: Vec<_> = tools.store.sets().await?.iter().map(set_json).collect();
    let text = "the previous tables are live again, as of their position; the projector brings them \
        up to date";
    stores.print(global, json!({"sets": sets}), text)?;
    Ok(ExitCode::SUCCESS)
}
