//! Cache of the newest events, so that live readers rarely touch the disk.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use service_kit::mutex::lock;

use crate::log::event::Event;

const MAX_EVENTS: usize = 8_192;

/// Maximum size of cached event bodies in bytes.
const MAX_BYTES: usize = 16 * 1_024 * 1_024;

/// A window at the end of the log. Newly committed positions have no gaps, so a position can be
/// used as an index.
#[derive(Default)]
pub(super) struct TailCache {
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

impl TailCache {
    /// Adds committed events, which must follow the cached ones.
    pub(super) fn push_committed(&self, committed: impl IntoIterator<Item = Arc<Event>>) {
        let mut window = lock(&self.window);
        for event in committed {
            window.bytes += event_bytes(&event);
            window.events.push_back(event);
            // An event above the byte limit empties the window. Readers then go to the disk.
            while window.events.len() > MAX_EVENTS || window.bytes > MAX_BYTES {
                let Some(oldest) = window.events.pop_front() else { break };
                window.bytes -= event_bytes(&oldest);
            }
        }
    }

    /// Returns up to `limit` events after `position`; `None` if the first of them is not cached
    /// (any more).
    pub(super) fn events_after(&self, position: u64, limit: usize) -> Option<Vec<Arc<Event>>> {
        let window = lock(&self.window);
        let first = window.events.front()?.position;
        // The subtraction fails if the wanted event is older than the window.
        let offset = usize::try_from((position + 1).checked_sub(first)?).ok()?;
        Some(window.events.iter().skip(offset).take(limit).map(Arc::clone).collect())
    }
}

fn event_bytes(event: &Event) -> usize {
    event.data.len() + event.metadata.len() + event.event_type.len() + size_of::<Event>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::bytes::Bytes;

    fn event(position: u64, size: usize) -> Arc<Event> {
        Arc::new(Event { position, data: Bytes::from(vec![0; size]), ..Event::default() })
    }

    fn positions(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.position).collect()
    }

    #[test]
    fn cached_events_are_found_by_position() {
        let cache = TailCache::default();
        assert_eq!(cache.events_after(0, 10), None);
        cache.push_committed((5..=9).map(|position| event(position, 1)));
        assert_eq!(cache.events_after(3, 10), None);
        assert_eq!(positions(&cache.events_after(4, 2).unwrap()), [5, 6]);
        assert_eq!(positions(&cache.events_after(8, 10).unwrap()), [9]);
        assert_eq!(positions(&cache.events_after(9, 10).unwrap()), [0; 0]);
    }

    #[test]
    fn window_is_bounded_by_count_and_bytes() {
        let cache = TailCache::default();
        cache.push_committed((1..=20_000).map(|position| event(position, 1)));
        assert_eq!(cache.events_after(0, 10), None);
        assert_eq!(positions(&cache.events_after(19_998, 10).unwrap()), [19_999, 20_000]);
        cache.push_committed([event(20_001, MAX_BYTES)]);
        assert_eq!(cache.events_after(19_998, 10), None);
    }
}
