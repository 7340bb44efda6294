//! What the index knows of persistent subscription groups.

use crate::log::{
    memtable::GroupRecord,
    write::{GroupKey, GroupWrite},
};

/// A group as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredGroup {
    pub stream: String,
    pub name: String,
    pub settings: String,
    pub checkpoint: Option<u64>,
    /// Where the entry with these settings begins in the log.
    pub saved_at: u64,
    /// Where the entry with the checkpoint begins in the log.
    pub checkpoint_at: Option<u64>,
}

/// All groups, in the order of their streams and names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::log) struct Groups(pub Vec<StoredGroup>);

impl Groups {
    /// Adds what the next record says.
    pub(in crate::log) fn apply(&mut self, record: &GroupRecord) {
        let at = record.offset;
        match &record.write {
            GroupWrite::Save { key, settings } => self.save(key, settings, at),
            GroupWrite::Checkpoint { key, checkpoint } => {
                if let Ok(found) = self.find(key) {
                    self.0[found].checkpoint = Some(*checkpoint);
                    self.0[found].checkpoint_at = Some(at);
                }
            }
            GroupWrite::Remove { key } => {
                if let Ok(found) = self.find(key) {
                    self.0.remove(found);
                }
            }
        }
    }

    fn save(&mut self, key: &GroupKey, settings: &str, saved_at: u64) {
        match self.find(key) {
            Ok(found) => {
                settings.clone_into(&mut self.0[found].settings);
                self.0[found].saved_at = saved_at;
            }
            Err(place) => {
                let group = StoredGroup {
                    stream: key.stream.clone(),
                    name: key.name.clone(),
                    settings: settings.to_owned(),
                    checkpoint: None,
                    saved_at,
                    checkpoint_at: None,
                };
                self.0.insert(place, group);
            }
        }
    }

    /// Where the group is, or where it would have to be.
    fn find(&self, key: &GroupKey) -> Result<usize, usize> {
        let wanted = (&key.stream, &key.name);
        self.0.binary_search_by(|group| (&group.stream, &group.name).cmp(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_checkpoint_are_those_of_the_newest_records() {
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
            groups.apply(&GroupRecord { offset, write });
        }
        let [group] = &groups.0[..] else { panic!("{groups:?}") };
        assert_eq!((&*group.name, &*group.settings, group.checkpoint), ("b", "new", Some(2)));
        assert_eq!((group.saved_at, group.checkpoint_at), (104, Some(103)));
    }
}
