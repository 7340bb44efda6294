//! What a backup in a folder says of itself.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// File name of the manifest inside the backup's folder. It is written last.
pub(super) const MANIFEST_FILE: &str = "backup.json";

/// The manifest of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub store: Uuid,
    /// Offset behind the last entry.
    pub end: u64,
    /// Position of the last event.
    pub position: u64,
    /// Files that will never be appended to.
    pub final_chunks: Vec<String>,
}
