//! Tamper evidence: the metadata of every event carries the hash of the previous event in its
//! stream. docs/AUDIT.md describes what that proves, and how to compute it without this program.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::store::logged_event::LoggedEvent;

/// Prefix of the hashed bytes, so that no other use of SHA-256 gives the same hash. Fixed for ever.
const DOMAIN: &[u8] = b"dofs.event.v1";

/// SHA-256 of an event as it is stored; displayed in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHash([u8; 32]);

impl EventHash {
    /// The hash that the first event of a stream carries.
    pub const NONE: Self = Self([0; 32]);

    /// Computes the hash over type, data and metadata, each behind its length, so that no byte can
    /// move from one to the next.
    pub(crate) fn compute(event_type: &str, data: &[u8], metadata: &[u8]) -> Self {
        let mut hash = Sha256::new_with_prefix(DOMAIN);
        for part in [event_type.as_bytes(), data, metadata] {
            // A length in memory fits into 64 bits.
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The last event of a stream, as an appender has read it. It is never made from events that were
/// sent: the store may have recognised their ids, and hold the events of an earlier append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHead {
    pub revision: u64,
    pub hash: EventHash,
}

impl LoggedEvent {
    /// Returns the event as the head of its stream, for an append behind it.
    pub fn head(&self) -> StreamHead {
        let hash = EventHash::compute(&self.event_type, &self.data, &self.metadata);
        StreamHead { revision: self.revision, hash }
    }

    /// Returns the hash of the previous event that this event carries.
    pub fn previous_hash(&self) -> Option<String> {
        let metadata: Option<ChainMetadata> = serde_json::from_slice(&self.metadata).ok();
        metadata?.previous_hash
    }
}

/// The part of the metadata that forms the chain.
#[derive(Deserialize)]
struct ChainMetadata {
    previous_hash: Option<String>,
}

/// How an event is linked to the previous one.
#[derive(Debug, PartialEq, Eq)]
pub enum ChainLink {
    /// It carries the hash of the stored previous event.
    Intact,
    /// Neither it nor any earlier event carries a hash, and the stream is older than the store's
    /// chain: written by a release without the chain, or by another tool.
    Unchained,
    /// It carries another hash, or none although the chain had begun.
    Broken { expected: EventHash, found: Option<String> },
}

/// Check of one stream's hash chain, event by event.
#[derive(Debug)]
pub struct ChainCheck {
    last: EventHash,
    /// The last event if it was skipped: its hash is computed only if the next event is checked.
    skipped: Option<LoggedEvent>,
    has_begun: bool,
}

impl ChainCheck {
    /// Begins before the first event.
    pub fn begin() -> Self {
        Self { last: EventHash::NONE, skipped: None, has_begun: false }
    }

    /// Begins where the store's chain has begun: then the first event must carry a hash, too.
    pub(crate) fn begin_chained() -> Self {
        Self { has_begun: true, ..Self::begin() }
    }

    /// Continues behind an event that another check of the stream has reached. `has_begun` is the state
    /// of that check behind the event.
    pub fn resume(last: &LoggedEvent, has_begun: bool) -> Self {
        Self { skipped: Some(last.clone()), has_begun, ..Self::begin() }
    }

    /// Returns whether the next event must carry a hash.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Passes the next event without a check, which costs a hash less.
    pub fn skip_event(&mut self, event: &LoggedEvent) {
        self.has_begun = self.has_begun || event.previous_hash().is_some();
        self.skipped = Some(event.clone());
    }

    /// Checks the next event. The event after it is compared with this event as it is stored, so each
    /// change is reported once.
    pub fn check_event(&mut self, event: &LoggedEvent) -> ChainLink {
        let skipped = self.skipped.take().map(|skipped| skipped.head().hash);
        let last = std::mem::replace(&mut self.last, event.head().hash);
        let expected = skipped.unwrap_or(last);
        let found = event.previous_hash();
        if found.is_none() && !self.has_begun {
            return ChainLink::Unchained;
        }
        self.has_begun = true;
        if found.as_deref() == Some(expected.to_string().as_str()) {
            ChainLink::Intact
        } else {
            ChainLink::Broken { expected, found }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::OrderId;
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::store::client::Position;

    fn event(data: &str, previous: Option<&str>) -> LoggedEvent {
        LoggedEvent {
            order_id: OrderId(Uuid::nil()),
            event_id: Uuid::nil(),
            revision: 0,
            position: Position { commit: 0, prepare: 0 },
            event_type: "OrderStored".to_owned(),
            data: data.into(),
            metadata: serde_json::json!({ "previous_hash": previous }).to_string().into_bytes(),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn check_all(events: &[LoggedEvent]) -> Vec<ChainLink> {
        let mut chain = ChainCheck::begin();
        events.iter().map(|event| chain.check_event(event)).collect()
    }

    /// Computed with the program in docs/AUDIT.md: a change here breaks every chain ever written.
    #[test]
    fn hash_equals_the_documented_one() {
        let hash = EventHash::compute("OrderStored", b"{\"a\":1}", b"{}");
        assert_eq!(
            hash.to_string(),
            "145d6f38a391b4f7125d25db70b2eb35469199c0427746510208791f5cd42bf9"
        );
    }

    #[test]
    fn bytes_cannot_move_between_the_parts() {
        let hash = EventHash::compute("a", b"bc", b"d");
        for (event_type, data, metadata) in [("ab", "c", "d"), ("a", "b", "cd"), ("a", "bcd", "")] {
            assert_ne!(EventHash::compute(event_type, data.as_bytes(), metadata.as_bytes()), hash);
        }
    }

    #[test]
    fn chain_may_begin_late_and_must_not_end() {
        let old = event("old", None);
        let hash = old.head().hash.to_string();
        let next = event("next", Some(&hash));
        let [ChainLink::Unchained, ChainLink::Intact, ChainLink::Broken { expected, found: None }] =
            &check_all(&[old, next.clone(), event("foreign", None)])[..]
        else {
            panic!("the event without a hash broke the chain");
        };
        assert_eq!(*expected, next.head().hash);
    }

    #[test]
    fn resumed_check_finds_the_same_links() {
        let old = event("old", None);
        let next = event("next", Some(&old.head().hash.to_string()));
        let stream = [old, next.clone(), event("foreign", None), next, event("last", None)];
        let links = check_all(&stream);
        for n_before in 1..stream.len() {
            let mut whole = ChainCheck::begin();
            stream[..n_before].iter().for_each(|event| drop(whole.check_event(event)));
            let mut resumed = ChainCheck::resume(&stream[n_before - 1], whole.has_begun());
            let mut skipping = ChainCheck::begin();
            stream[..n_before].iter().for_each(|event| skipping.skip_event(event));
            for check in [&mut resumed, &mut skipping] {
                let rest = stream[n_before..].iter().map(|event| check.check_event(event));
                assert_eq!(rest.collect::<Vec<_>>(), links[n_before..], "{n_before}");
            }
        }
    }

    #[test]
    fn stream_that_begins_in_a_chained_store_is_chained_from_its_first_event() {
        let mut chain = ChainCheck::begin_chained();
        let bare = chain.check_event(&event("bare", None));
        assert_eq!(bare, ChainLink::Broken { expected: EventHash::NONE, found: None });
        let none = EventHash::NONE.to_string();
        assert_eq!(
            ChainCheck::begin_chained().check_event(&event("tied", Some(&none))),
            ChainLink::Intact
        );
    }

    #[test]
    fn changed_event_breaks_only_the_link_behind_it() {
        let none = EventHash::NONE.to_string();
        let first = event("first", Some(&none));
        let second = event("second", Some(&first.head().hash.to_string()));
        let third = event("third", Some(&second.head().hash.to_string()));
        let intact = [first.clone(), second.clone(), third.clone()];
        assert!(check_all(&intact).iter().all(|link| *link == ChainLink::Intact));

        let changed = [event("first!", Some(&none)), second, third.clone()];
        let found: Vec<_> =
            check_all(&changed).iter().map(|link| *link == ChainLink::Intact).collect();
        assert_eq!(found, [true, false, true]);

        let without_the_second = [first, third.clone()];
        assert!(matches!(check_all(&without_the_second)[1], ChainLink::Broken { .. }));
        let without_the_beginning = [third];
        assert!(matches!(check_all(&without_the_beginning)[0], ChainLink::Broken { .. }));
    }
}
