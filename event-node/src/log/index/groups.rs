//! Persistent subscription groups in the index.

use crate::log::{
    memtable::GroupRecord,
    requests::{GroupKey, GroupWrite},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredGroup {
    pub key: GroupKey,
    pub settings: String,
    pub checkpoint: Option<u64>,
    /// Log offset of the entry with these settings.
    pub saved_at: u64,
    /// Log offset of the entry with the checkpoint.
    pub checkpoint_at: Option<u64>,
}

/// All groups, ordered by stream and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::log) struct Groups(pub Vec<StoredGroup>);

impl Groups {
    /// Applies the next record of the log.
    pub(in crate::log) fn apply_record(&mut self, record: &GroupRecord) {
        let at = record.offset;
        match &record.write {
            GroupWrite::Save { key, settings } => self.save_group(key, settings, at),
            GroupWrite::Checkpoint { key, checkpoint } => {
                // A scavenge may keep checkpoints of a group whose settings it has removed.
                if let Ok(found) = self.find_slot(key) {
                    self.0[found].checkpoint = Some(*checkpoint);
                    self.0[found].checkpoint_at = Some(at);
                }
            }
            GroupWrite::Remove { key } => {
                if let Ok(found) = self.find_slot(key) {
                    self.0.remove(found);
                }
            }
        }
    }

    fn save_group(&mut self, key: &GroupKey, settings: &str, saved_at: u64) {
        match self.find_slot(key) {
            Ok(found) => {
                settings.clone_into(&mut self.0[found].settings);
                self.0[found].saved_at = saved_at;
            }
            Err(slot) => {
                let group = StoredGroup {
                    key: key.clone(),
                    settings: settings.to_owned(),
                    checkpoint: None,
                    saved_at,
                    checkpoint_at: None,
                };
                self.0.insert(slot, group);
            }
        }
    }

    /// Returns the group's slot, or the slot at which to insert it.
    fn find_slot(&self, key: &GroupKey) -> Result<usize, usize> {
        self.0.binary_search_by(|group| group.key.cmp(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_records_define_settings_and_checkpoint() {
        let key = |name: &str| GroupKey { stream: "$all".to_owned(), name: name.to_owned() };
        let save = |name, settings: &str| GroupWrite::Save {
            key: key(name),
            settings: settings.to_owned(),
        };
        let checkpoint = |name, checkpoint| GroupWrite::Checkpoint { key: key(name), checkpoint };
        let mut groups = Groups::default();
        let writes = [
            checkpoint("b", 1),
            save("b", "old"),
            save("a", "removed"),
            checkpoint("b", 2),
            save("b", "new"),
            GroupWrite::Remove { key: key("a") },
            GroupWrite::Remove { key: key("c") },
        ];
        for (write, offset) in writes.into_iter().zip(100..) {
            groups.apply_record(&GroupRecord { offset, write });
        }
        let [group] = &groups.0[..] else { panic!("{groups:?}") };
        assert_eq!((&*group.key.name, &*group.settings, group.checkpoint), ("b", "new", Some(2)));
        assert_eq!((group.saved_at, group.checkpoint_at), (104, Some(103)));
    }
}
