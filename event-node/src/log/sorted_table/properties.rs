//! Property tests: a table answers like an in-memory map, and a damaged table never answers
//! wrongly.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*};

use crate::log::{
    disk::{Disk, simulated::SimulatedDisk},
    sorted_table::{FilterHash, SortedTable, TableBuilder, TableCursor, TableError, TableId},
};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Returns keys with common prefixes. Some values are long enough to make blocks of few rows.
fn any_rows() -> impl Strategy<Value = Rows> {
    let key = (0_u8..6, vec(any::<u8>(), 0..6))
        .prop_map(|(prefix, rest)| [vec![prefix; usize::from(prefix) * 7], rest].concat());
    let value = prop_oneof![3 => vec(any::<u8>(), 0..8), 1 => vec(any::<u8>(), 0..3_000)];
    prop::collection::btree_map(key, value, 1..120)
}

fn build_table(rows: &Rows) -> (Arc<SimulatedDisk>, TableId) {
    let disk = Arc::new(SimulatedDisk::default());
    let mut builder = TableBuilder::new(Arc::clone(&disk) as Arc<dyn Disk>, rows.len() as u64);
    for (key, value) in rows {
        builder.add_filter_key(FilterHash::from_key(key));
        builder.add_row(key, value).unwrap();
    }
    let id = builder.finish().unwrap();
    (disk, id)
}

fn open_table(disk: Arc<SimulatedDisk>, id: TableId) -> Result<SortedTable, TableError> {
    SortedTable::open(disk, id)
}

fn collect_forwards(mut cursor: TableCursor<'_>) -> Result<Rows, TableError> {
    let mut rows = Rows::new();
    while let Some((key, value)) = cursor.current_row() {
        rows.insert(key.to_vec(), value.to_vec());
        cursor.step_forwards()?;
    }
    Ok(rows)
}

fn collect_backwards(mut cursor: TableCursor<'_>) -> Result<Rows, TableError> {
    let mut rows = Rows::new();
    while let Some((key, value)) = cursor.current_row() {
        rows.insert(key.to_vec(), value.to_vec());
        cursor.step_backwards()?;
    }
    Ok(rows)
}

proptest! {
    #[test]
    fn lookups_answer_like_a_map(rows in any_rows(), others in vec(vec(0_u8..8, 0..9), 0..20)) {
        let (disk, id) = build_table(&rows);
        let table = open_table(disk, id).unwrap();
        prop_assert_eq!(table.n_rows(), rows.len() as u64);
        prop_assert_eq!(&collect_forwards(table.seek_first().unwrap()).unwrap(), &rows);
        for key in rows.keys().chain(&others) {
            let before: Rows = rows.range(..=key.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
            let cursor = table.seek_at_or_before(key).unwrap();
            let found = cursor.current_row().map(|(key, _)| key.to_vec());
            prop_assert_eq!(&found, &before.keys().next_back().cloned());
            prop_assert_eq!(collect_backwards(cursor).unwrap(), before);
            if let Some(found) = found {
                let after = rows.range(found..).map(|(k, v)| (k.clone(), v.clone())).collect::<Rows>();
                prop_assert_eq!(collect_forwards(table.seek_at_or_before(key).unwrap()).unwrap(), after);
            }
        }
        prop_assert!(rows.keys().all(|key| table.may_contain(FilterHash::from_key(key))));
    }

    #[test]
    fn damaged_tables_give_no_wrong_answer(
        rows in any_rows(),
        at in any::<prop::sample::Index>(),
        change in 1_u8..,
        cut in any::<bool>(),
    ) {
        let (disk, id) = build_table(&rows);
        let mut bytes = vec![0; usize::try_from(disk.byte_length().unwrap()).unwrap()];
        disk.read_exact_at(&mut bytes, 0).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= change }
        let read = open_table(Arc::new(SimulatedDisk::with_content(bytes)), id)
            .and_then(|table| collect_forwards(table.seek_first()?));
        prop_assert!(matches!(read, Err(TableError::Damaged)), "byte {at}");
    }
}

/// An older table of the same length must not be taken for the named one.
#[test]
fn another_table_of_the_same_length_is_refused() {
    let rows = |value: u8| Rows::from([(b"key".to_vec(), vec![value])]);
    let ((older, older_id), (_, newer_id)) = (build_table(&rows(1)), build_table(&rows(2)));
    assert_eq!(older_id.length, newer_id.length);
    assert!(matches!(open_table(older, newer_id), Err(TableError::Damaged)));
}

/// Prefix compression must not make decoded blocks unboundedly large.
#[test]
fn blocks_of_long_keys_stay_small() {
    let long = |number: u64| [vec![7; 50_000], number.to_be_bytes().to_vec()].concat();
    let rows: Rows = (0..50).map(|number| (long(number), Vec::new())).collect();
    let (disk, id) = build_table(&rows);
    let table = open_table(disk, id).unwrap();
    assert!(table.n_blocks() >= 25, "{}", table.n_blocks());
    assert_eq!(collect_forwards(table.seek_first().unwrap()).unwrap(), rows);
}
