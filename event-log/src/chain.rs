//! Tamper evidence: the metadata of every event carries the hash of the event before it in its
//! stream. docs/AUDIT.md says what that proves, and how to compute it without this program.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::stream::LoggedEvent;

/// What every hash begins with, so that no other use of SHA-256 gives the same. Fixed for ever.
const DOMAIN: &[u8] = b"dofs.event.v1";

/// The SHA-256 of an event as it is stored; in hexadecimal where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHash([u8; 32]);

impl EventHash {
    /// What stands for the event before the first.
    pub const NONE: Self = Self([0; 32]);

    /// The hash over type, data and metadata, each behind its length, so that no byte can move
    /// from one to the next.
    pub(crate) fn of(event_type: &str, data: &[u8], metadata: &[u8]) -> Self {
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

/// The last event of a stream, as an appender found it stored. It is never made from what was
/// sent: the store may have recognised that by its ids, and hold what somebody else sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub revision: u64,
    pub hash: EventHash,
}

impl LoggedEvent {
    /// The event as the head of its stream, for an append behind it.
    pub fn head(&self) -> Head {
        let hash = EventHash::of(&self.event_type, &self.data, &self.metadata);
        Head { revision: self.revision, hash }
    }

    /// The hash that the event carries of the one before it.
    pub fn previous_hash(&self) -> Option<String> {
        let metadata: Option<ChainMetadata> = serde_json::from_slice(&self.metadata).ok();
        metadata?.previous_hash
    }
}

/// The part of the metadata that makes the chain.
#[derive(Deserialize)]
struct ChainMetadata {
    previous_hash: Option<String>,
}

/// How an event stands to the one before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// It carries the hash of what is stored there.
    Whole,
    /// Neither it nor any before it carries one, and the stream is older than the store's chain:
    /// written by a release without the chain, or by another tool.
    Unchained,
    /// It carries another, or none where the chain had begun.
    Broken { expected: EventHash, found: Option<String> },
}

/// The chain of one stream, followed event by event.
#[derive(Debug)]
pub(crate) struct Chain {
    last: EventHash,
    is_begun: bool,
}

impl Chain {
    /// Before the first event.
    pub(crate) fn start() -> Self {
        Self { last: EventHash::NONE, is_begun: false }
    }

    /// The same where the store's chain has begun: whoever writes there ties even the first event.
    pub(crate) fn begun() -> Self {
        Self { is_begun: true, ..Self::start() }
    }

    /// The next event's link. The one after is held against what is stored, not against what
    /// should be: each change is reported once.
    pub(crate) fn follow(&mut self, event: &LoggedEvent) -> Link {
        let expected = std::mem::replace(&mut self.last, event.head().hash);
        let found = event.previous_hash();
        if found.is_none() && !self.is_begun {
            return Link::Unchained;
        }
        self.is_begun = true;
        if found.as_deref() == Some(expected.to_string().as_str()) {
            Link::Whole
        } else {
            Link::Broken { expected, found }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::OrderId;
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::client::Position;

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

    fn links(events: &[LoggedEvent]) -> Vec<Link> {
        let mut chain = Chain::start();
        events.iter().map(|it| chain.follow(it)).collect()
    }

    /// Computed with the program in docs/AUDIT.md: a change here breaks every chain ever written.
    #[test]
    fn hash_is_the_documented_one() {
        let hash = EventHash::of("OrderStored", b"{\"a\":1}", b"{}");
        assert_eq!(
            hash.to_string(),
            "145d6f38a391b4f7125d25db70b2eb35469199c0427746510208791f5cd42bf9"
        );
    }

    #[test]
    fn bytes_cannot_move_between_the_parts() {
        let hash = EventHash::of("a", b"bc", b"d");
        for (event_type, data, metadata) in [("ab", "c", "d"), ("a", "b", "cd"), ("a", "bcd", "")] {
            assert_ne!(EventHash::of(event_type, data.as_bytes(), metadata.as_bytes()), hash);
        }
    }

    #[test]
    fn chain_begins_anywhere_and_never_ends() {
        let old = event("old", None);
        let hash = old.head().hash.to_string();
        let next = event("next", Some(&hash));
        let [Link::Unchained, Link::Whole, Link::Broken { expected, found: None }] =
            &links(&[old, next.clone(), event("foreign", None)])[..]
        else {
            panic!("the event without a hash broke the chain");
        };
        assert_eq!(*expected, next.head().hash);
    }

    #[test]
    fn stream_that_begins_in_a_chained_store_is_chained_from_its_first_event() {
        let mut chain = Chain::begun();
        let bare = chain.follow(&event("bare", None));
        assert_eq!(bare, Link::Broken { expected: EventHash::NONE, found: None });
        let none = EventHash::NONE.to_string();
        assert_eq!(Chain::begun().follow(&event("tied", Some(&none))), Link::Whole);
    }

    #[test]
    fn changed_event_breaks_the_link_behind_it_only() {
        let none = EventHash::NONE.to_string();
        let first = event("first", Some(&none));
        let second = event("second", Some(&first.head().hash.to_string()));
        let third = event("third", Some(&second.head().hash.to_string()));
        let whole = [first.clone(), second.clone(), third.clone()];
        assert!(links(&whole).iter().all(|it| *it == Link::Whole));

        let changed = [event("first!", Some(&none)), second, third.clone()];
        let found: Vec<_> = links(&changed).iter().map(|it| *it == Link::Whole).collect();
        assert_eq!(found, [true, false, true]);

        let without_the_second = [first, third.clone()];
        assert!(matches!(links(&without_the_second)[1], Link::Broken { .. }));
        let without_the_beginning = [third];
        assert!(matches!(links(&without_the_beginning)[0], Link::Broken { .. }));
    }
}
