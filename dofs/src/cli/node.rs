//! Arguments of `dofs node`.

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
    /// Address of the gRPC server; port 0 selects a free port [default: 127.0.0.1:2113]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Create an empty store if the log is missing although other files of a store exist
    #[arg(long)]
    pub(crate) allow_empty: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Verify the whole store while no process uses it; exits with code 3 if it is damaged
    Verify {
        #[command(flatten)]
        folder: NodeFolder,
    },
    /// Back up the store, even while the node runs; every copied file is read back and verified
    ///
    /// An existing backup folder is updated incrementally: files that cannot have changed are not
    /// copied again.
    Backup {
        #[command(flatten)]
        folder: NodeFolder,
        /// Folder of the backup, or `-` to stream to standard output
        #[arg(long, value_name = "DIR|-")]
        to: PathBuf,
    },
    /// Restore a backup to a folder without a store
    Restore {
        #[command(flatten)]
        folder: NodeFolder,
        /// Folder of the backup, or `-` to stream from standard input
        #[arg(long, value_name = "DIR|-")]
        from: PathBuf,
    },
    /// Copy the intact events of a damaged store to a new store, and list the lost ones
    ///
    /// The damaged store is not modified; no process may use it. Exits with code 3 if events are
    /// lost.
    Salvage {
        #[command(flatten)]
        folder: NodeFolder,
        /// Folder of the new store
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Scavenge the configured event store while it runs: delete events that readers cannot reach
    ///
    /// Deletes events hidden by $maxCount, $maxAge and $tb, and events of deleted streams. Events
    /// of orders stay. An interrupted scavenge resumes when the store starts again.
    Scavenge,
    /// Maintain the users file of the embedded event store; a running store follows within seconds
    Users {
        #[command(subcommand)]
        command: UsersCommand,
        /// Users file [default: `node.users`]
        #[arg(long, global = true, value_name = "FILE")]
        file: Option<String>,
    },
    /// Grant a user of the configured event store the rights that DOFS needs, and no others
    ///
    /// Creates the worker's group, and edits the access control lists of `$all`, of the group's parked
    /// messages, and of streams without an own list. `event_store.url` must name an administrator.
    Grant {
        /// Name of the user
        user: String,
        /// Do not restrict other users, because other programs use the store, too
        #[arg(long)]
        shared: bool,
    },
    /// Copy every stream of the configured event store to another one, e.g. an EventStoreDB
    ///
    /// Ids, metadata and revisions are preserved. Events that the target already has are compared,
    /// so an interrupted copy can be resumed, and repeating a finished copy verifies it. No client
    /// may append to either store meanwhile. Exits with code 3 if the stores differ.
    Export {
        /// Connection string of the other store, e.g. `esdb://host:2113?tls=false`
        #[arg(long, value_name = "ADDRESS")]
        to: EventStoreUrl,
    },
    /// Copy every stream of another event store to the configured one; see `export`
    Import {
        /// Connection string of the other store, e.g. `esdb://host:2113?tls=false`
        #[arg(long, value_name = "ADDRESS")]
        from: EventStoreUrl,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Add a user; the password is read from standard input
    ///
    /// The users `admin` and `ops` have the rights of the groups `$admins` and `$ops` by their names.
    Add {
        /// Name of the user
        name: String,
        /// Group of the user: `$admins`, `$ops`, or any name that access control lists mention
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// List the users with their groups
    List,
    /// Remove a user
    Remove {
        /// Name of the user
        name: String,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Replace the password of a user; the password is read from standard input
    Password {
        /// Name of the user
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NodeFolder {
    /// Data folder of the store; created if it does not exist [default: .dofs/events]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl NodeFolder {
    /// Returns the folder as the value of the setting `node.data`.
    pub(crate) fn as_setting(&self) -> Option<Cow<'_, str>> {
        self.data.as_deref().map(Path::to_string_lossy)
    }
}
