//! `dofs node` and its subcommands.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use event_log::EventStoreUrl;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Node {
    #[command(subcommand)]
    pub(crate) command: Option<NodeCommand>,
    #[command(flatten)]
    pub(crate) folder: NodeFolder,
    /// Address of gRPC; port 0 picks a free one [default: 127.0.0.1:2113]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Begin an empty store where the log is missing and other files of a store are there
    #[arg(long)]
    pub(crate) allow_empty: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Check the whole store while no process runs on it; exit 3 if it is damaged
    Verify {
        #[command(flatten)]
        folder: NodeFolder,
    },
    /// Back the store up, also while the node runs; what was copied is read back and checked
    ///
    /// A backup in a folder is brought up to date: files that cannot have changed are not copied
    /// again.
    Backup {
        #[command(flatten)]
        folder: NodeFolder,
        /// Folder of the backup, or `-` for a stream to stdout
        #[arg(long, value_name = "DIR|-")]
        to: PathBuf,
    },
    /// Restore a backup to a folder that holds no store
    Restore {
        #[command(flatten)]
        folder: NodeFolder,
        /// Folder of the backup, or `-` for a stream from stdin
        #[arg(long, value_name = "DIR|-")]
        from: PathBuf,
    },
    /// Copy what is whole of a damaged store to a new one, and list what is lost
    ///
    /// The damaged store is not changed; no process may run on it. Exit 3 if something is lost.
    Salvage {
        #[command(flatten)]
        folder: NodeFolder,
        /// Folder of the new store
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Remove from the log of the configured event store what no reader can reach, while it runs
    ///
    /// That is: events hidden by $maxCount, $maxAge and $tb, and those of deleted streams. Orders
    /// stay. An interrupted scavenge goes on by itself when the store starts again.
    Scavenge,
    /// Copy every stream of the configured event store to another one, e.g. an EventStoreDB
    ///
    /// Ids, metadata and revisions stay. What is there already is compared, and in the end
    /// everything is: an interrupted copy goes on where it stopped, and a copy made again is a
    /// check. Nobody may append to either store meanwhile. Exit 3 if they differ.
    Export {
        /// Address of the other store, e.g. `esdb://host:2113?tls=false`
        #[arg(long, value_name = "ADDRESS")]
        to: EventStoreUrl,
    },
    /// Copy every stream of another event store to the configured one; see `export`
    Import {
        /// Address of the other store, e.g. `esdb://host:2113?tls=false`
        #[arg(long, value_name = "ADDRESS")]
        from: EventStoreUrl,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NodeFolder {
    /// Folder for the data; made if it is not there [default: .dofs/events]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl NodeFolder {
    /// The folder as a setting.
    pub(crate) fn setting(&self) -> Option<Cow<'_, str>> {
        self.data.as_deref().map(Path::to_string_lossy)
    }
}
