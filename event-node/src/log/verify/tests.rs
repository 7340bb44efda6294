//! Tests of `verify`: intact stores pass, any damaged byte or row is found.

use std::fs;

use uuid::Uuid;

use super::*;
use crate::log::{
    appender::Appender,
    chunk::FIRST_ENTRY,
    entry::{Encoder, EventStamp},
    event::{METADATA_TYPE, NewEvent},
    index::MANIFEST_FILE,
    memtable::{GroupRecord, Mark},
    requests::{GroupKey, GroupWrite},
    stream_metadata::StreamLimits,
};

/// Stream, first revision and number of events of each entry.
type Entries<'a> = &'a [(&'a str, u64, u64)];

const SOUND: Entries<'_> =
    &[("order-1", 0, 2), ("$$order-1", 0, 1), ("order-1", 2, 1), ("gone", TOMBSTONE_REVISION, 1)];

fn event() -> NewEvent {
    NewEvent::new(Uuid::nil(), METADATA_TYPE, true, &br#"{"$maxCount":5}"#[..])
}

fn key(name: &str) -> GroupKey {
    GroupKey { stream: "$all".to_owned(), name: name.to_owned() }
}

/// Creates a log with these entries and two group records.
fn log(entries: Entries<'_>) -> (tempfile::TempDir, ChunkedLog) {
    let folder = tempfile::tempdir().unwrap();
    let log = ChunkedLog::create(Arc::new(DiskFolder::writable(folder.path())), Uuid::from_u128(1))
        .unwrap();
    let mut appender = Appender::new(log.clone(), u64::MAX);
    let mut position = 1;
    for (stream, revision, count) in entries {
        let mut encoder = Encoder::default();
        encoder.begin_entry(appender.end_offset());
        let stamp = EventStamp { position, revision: *revision, created_ticks: 0 };
        encoder.add_events(stream, stamp, &vec![event(); usize::try_from(*count).unwrap()]);
        encoder.finish_entry();
        appender.append(encoder.bytes()).unwrap();
        position += count;
    }
    for write in [
        GroupWrite::Save { key: key("g"), settings: "{}".to_owned() },
        GroupWrite::Checkpoint { key: key("g"), checkpoint: 3 },
    ] {
        let mut encoder = Encoder::default();
        encoder.begin_entry(appender.end_offset());
        encoder.add_group_write(&write);
        encoder.finish_entry();
        appender.append(encoder.bytes()).unwrap();
    }
    (folder, log)
}

fn all_of(log: &ChunkedLog) -> Memtable {
    let mut table = Memtable::starting_at(Progress { offset: FIRST_ENTRY, position: 0 });
    let mut scanner = log.scan_from(FIRST_ENTRY, LONG_READ);
    loop {
        let Some((offset, entry)) = scanner.next_entry().unwrap() else { return table };
        table.add_entry(offset, &entry).unwrap();
    }
}

fn open(folder: &tempfile::TempDir, log: &ChunkedLog) -> Index {
    let files: Arc<dyn Folder> = Arc::new(DiskFolder::writable(folder.path()));
    Index::open(&files, log).unwrap()
}

/// Creates a store with these entries, fully indexed.
fn store(entries: Entries<'_>) -> tempfile::TempDir {
    let (folder, log) = log(entries);
    open(&folder, &log).flush_memtable(&all_of(&log)).unwrap();
    folder
}

fn index_findings(folder: &tempfile::TempDir) -> Vec<String> {
    match verify_store(folder.path()) {
        Err(VerifyError::DamagedIndex { findings, .. }) => findings,
        other => panic!("{other:?}"),
    }
}

fn log_findings(folder: &tempfile::TempDir) -> Vec<String> {
    match verify_store(folder.path()) {
        Err(VerifyError::Damaged { findings }) => findings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn content_of_an_intact_store_is_counted() {
    let sound = verify_store(store(SOUND).path()).unwrap();
    assert_eq!(sound, VerifySummary { events: 5, streams: 3, groups: 1 });
}

#[test]
fn missing_or_older_index_is_not_damage() {
    let folder = store(SOUND);
    fs::remove_file(folder.path().join(MANIFEST_FILE)).unwrap();
    assert_eq!(verify_store(folder.path()).unwrap().events, 5);
    let (folder, log) = log(SOUND);
    drop(open(&folder, &log));
    assert_eq!(verify_store(folder.path()).unwrap().events, 5);
}

#[test]
fn revisions_out_of_order_are_found() {
    for entries in [
        &[("order-1", 0, 1), ("order-1", 2, 1)][..],
        &[("order-1", 1, 1)],
        &[("order-1", 1, 1), ("order-1", 0, 1)],
        &[("order-1", 0, 2), ("order-1", 0, 2)],
        &[("order-1", 0, 2), ("order-1", 1, 1)],
        &[("order-1", 0, 1), ("gone", TOMBSTONE_REVISION, 1), ("gone", TOMBSTONE_REVISION, 1)],
    ] {
        let findings = log_findings(&store(entries));
        assert!(findings[0].contains("in stream `"), "{findings:?}");
        assert!(findings[0].contains("revision"), "{findings:?}");
    }
}

/// Duplicate revisions far apart end up in different tables.
#[test]
fn duplicates_in_different_tables_are_found() {
    let (folder, log) = log(&[("order-1", 0, 1), ("order-1", 0, 1)]);
    let mut scanner = log.scan_from(FIRST_ENTRY, LONG_READ);
    let index = open(&folder, &log);
    let mut progress = index.progress();
    for _ in 0..2 {
        let mut table = Memtable::starting_at(progress);
        let offset = scanner.next_offset();
        let (_, entry) = scanner.next_entry().unwrap().unwrap();
        table.add_entry(offset, &entry).unwrap();
        progress = table.progress;
        index.flush_memtable(&table).unwrap();
    }
    let mut disorder = Findings::default();
    check_revisions(&index.snapshot(), &Gaps::default(), &mut disorder).unwrap();
    assert_eq!(disorder.0[0], "stream `order-1` has revision 0 twice");
}

#[test]
fn every_damaged_byte_of_the_log_is_found() {
    let folder = store(SOUND);
    let file = folder.path().join(FIRST_CHUNK);
    let sound = fs::read(&file).unwrap();
    // The four bytes after the header's checksum have no meaning but must be zero.
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 4;
        fs::write(&file, damaged).unwrap();
        assert!(!log_findings(&folder).is_empty(), "byte {at}");
    }
    for length in FIRST_ENTRY..sound.len() as u64 {
        let mut damaged = sound.clone();
        damaged.truncate(usize::try_from(length).unwrap());
        fs::write(&file, damaged).unwrap();
        assert!(!log_findings(&folder).is_empty(), "length {length}");
    }
}

#[test]
fn every_damaged_byte_of_the_index_is_found() {
    let folder = store(SOUND);
    let names = DiskFolder::read_only(folder.path()).list_names().unwrap();
    let files: Vec<_> = names.iter().filter(|name| name.starts_with("index")).collect();
    assert_eq!(files.len(), 2);
    for name in files {
        let file = folder.path().join(name);
        let sound = fs::read(&file).unwrap();
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 16;
            fs::write(&file, damaged).unwrap();
            let findings = index_findings(&folder);
            assert!(findings[0].contains(name.as_str()), "byte {at}: {findings:?}");
            fs::write(&file, &sound[..at]).unwrap();
            index_findings(&folder);
        }
        fs::write(&file, sound).unwrap();
        verify_store(folder.path()).unwrap();
    }
}

/// The index has valid checksums but wrong content.
#[test]
fn every_kind_of_wrong_row_is_found() {
    type Change = fn(&mut Memtable);
    let changes: [(Change, &str); 12] = [
        (
            |table| run_of(table, "order-1").truncate(1),
            "its run of stream `order-1` from revision 2 on is missing",
        ),
        (
            |table| run_of(table, "order-1")[1].position = 9,
            "from revision 2 on differs from the log",
        ),
        (
            |table| run_of(table, "order-1")[0].offset += 1,
            "from revision 0 on differs from the log",
        ),
        (|table| run_of(table, "gone")[0].count = 2, "its run of stream `gone`"),
        (
            |table| {
                let run = run_of(table, "gone")[0];
                run_of(table, "new").push(run);
            },
            "its run of stream `new` from revision 9223372036854775807 on is not in the log",
        ),
        (
            |table| {
                table.set_limits(
                    "order-1".into(),
                    StreamLimits { max_count: Some(6), ..StreamLimits::default() },
                );
            },
            "its limits of stream `order-1` differs from the log",
        ),
        (
            |table| table.set_limits("other".into(), StreamLimits::default()),
            "its limits of stream `other` is not in the log",
        ),
        (|table| table.marks.clear(), "its mark at position 1 is missing"),
        (|table| table.marks[0].offset += 1, "its mark of byte 33 at position 1 is not in the log"),
        (
            |table| table.marks.push(Mark { position: 99, offset: 50 }),
            "its mark of byte 50 at position 99 is not in the log",
        ),
        (
            |table| {
                table
                    .groups
                    .push(GroupRecord { offset: 40, write: GroupWrite::Remove { key: key("g") } });
            },
            "its group `g` of stream `$all` is missing",
        ),
        (|table| table.groups[0].offset += 1, "its group `g` of stream `$all`"),
    ];
    for (change, wanted) in changes {
        let (folder, log) = log(SOUND);
        let mut table = all_of(&log);
        change(&mut table);
        open(&folder, &log).flush_memtable(&table).unwrap();
        let findings = index_findings(&folder);
        assert!(findings.iter().any(|finding| finding.contains(wanted)), "{wanted}: {findings:?}");
    }
}

fn run_of<'a>(table: &'a mut Memtable, stream: &str) -> &'a mut Vec<Run> {
    &mut table.streams.entry(stream.into()).or_default().runs
}

#[test]
fn progress_inside_an_entry_is_found() {
    for change in
        [(|progress| progress.offset -= 1) as fn(&mut Progress), |progress| progress.position += 1]
    {
        let (folder, log) = log(SOUND);
        let mut table = all_of(&log);
        change(&mut table.progress);
        open(&folder, &log).flush_memtable(&table).unwrap();
        let findings = index_findings(&folder);
        assert!(
            findings[0].contains("its progress is not at the end of a log entry"),
            "{findings:?}"
        );
    }
}

/// Lookups search from the newest table to the oldest.
#[test]
fn tables_in_the_wrong_order_are_found() {
    let (folder, log) = log(SOUND);
    let mut newer = all_of(&log);
    let mut older = Memtable::starting_at(newer.progress);
    older.streams.entry("order-1".into()).or_default().runs =
        run_of(&mut newer, "order-1").split_off(1);
    let index = open(&folder, &log);
    index.flush_memtable(&older).unwrap();
    index.flush_memtable(&newer).unwrap();
    drop(index);
    let findings = index_findings(&folder);
    assert!(findings[0].contains("is in the wrong table"), "{findings:?}");
}

#[test]
fn folder_without_a_store_is_reported_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(verify_store(folder.path()), Err(VerifyError::Missing { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let missing = folder.path().join("none");
    assert!(matches!(verify_store(&missing), Err(VerifyError::Missing { .. })));
    assert!(!missing.exists());
}

#[test]
fn verifying_changes_no_file() {
    let folder = store(SOUND);
    drop(FolderLock::acquire(folder.path()).unwrap());
    let content = || -> Vec<_> {
        let mut names = DiskFolder::read_only(folder.path()).list_names().unwrap();
        names.sort();
        names.into_iter().map(|name| (fs::read(folder.path().join(&name)).unwrap(), name)).collect()
    };
    let before = content();
    verify_store(folder.path()).unwrap();
    assert_eq!(content(), before);
}

#[test]
fn permission_errors_are_not_damage() {
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    let file = PathBuf::from("/data/events.log");
    for error in [
        OpenError::UnreadableLog { file: file.clone(), source: denied() },
        OpenError::UnreadableIndex { file: file.clone(), source: denied() },
        OpenError::LockFile { file: file.clone(), source: denied() },
    ] {
        let described = VerifyError::from_open_error(error).to_string();
        assert_eq!(
            described,
            "permission denied on /data/events.log: run this command as the user of the node"
        );
    }
    let other = OpenError::UnreadableLog { file, source: io::ErrorKind::InvalidInput.into() };
    assert!(matches!(VerifyError::from_open_error(other), VerifyError::Unavailable(_)));
}
