//! The newest events in memory, so that live readers seldom touch the disk.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use crate::log::event::Event;

/// Most events kept.
const MAX_EVENTS: usize = 8_192;

/// Most bytes of event bodies kept.
const MAX_BYTES: usize = 16 * 1_024 * 1_024;

/// A window on the end of the log. Positions have no gaps, so an offset finds an event.
#[derive(Default)]
pub(super) struct Recent {
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

impl Recent {
    /// Adds committed events, which must follow those added before.
    pub(super) fn extend(&self, committed: impl IntoIterator<Item = Arc<Event>>) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        for event in committed {
            window.bytes += weight(&event);
            window.events.push_back(event);
            while window.events.len() > MAX_EVENTS || window.bytes > MAX_BYTES {
                let Some(oldest) = window.events.pop_front() else { break };
                window.bytes -= weight(&oldest);
            }
        }
    }

    /// Up to `limit` events that follow `position`; `None` if the window no longer holds the
    /// first of them, or has not held any yet.
    pub(super) fn after(&self, position: u64, limit: usize) -> Option<Vec<Arc<Event>>> {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let first = window.events.front()?.position;
        let offset = usize::try_from((position + 1).checked_sub(first)?).ok()?;
        Some(window.events.iter().skip(offset).take(limit).map(Arc::clone).collect())
    }
}

fn weight(event: &Event) -> usize {
    event.data.len() + event.metadata.len() + event.event_type.len() + size_of::<Event>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::bytes::Bytes;
    use uuid::Uuid;

    fn event(position: u64, size: usize) -> Arc<Event> {
        Arc::new(Event {
            position,
            stream: "s".into(),
            revision: position,
            id: Uuid::nil(),
            event_type: "t".to_owned(),
            is_json: false,
            created_ticks: 0,
            metadata: Bytes::new(),
            data: Bytes::from(vec![0; size]),
        })
    }

    fn positions(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.position).collect()
    }

    #[test]
    fn events_are_found_by_position() {
        let recent = Recent::default();
        assert_eq!(recent.after(0, 10), None);
        recent.extend((5..=9).map(|position| event(position, 1)));
        assert_eq!(recent.after(3, 10), None);
        assert_eq!(positions(&recent.after(4, 2).unwrap()), [5, 6]);
        assert_eq!(positions(&recent.after(8, 10).unwrap()), [9]);
        assert_eq!(positions(&recent.after(9, 10).unwrap()), [0; 0]);
    }

    #[test]
    fn the_window_is_bounded_by_count_and_by_bytes() {
        let recent = Recent::default();
        recent.extend((1..=20_000).map(|position| event(position, 1)));
        assert_eq!(recent.after(0, 10), None);
        assert_eq!(positions(&recent.after(19_998, 10).unwrap()), [19_999, 20_000]);
        recent.extend([event(20_001, MAX_BYTES)]);
        assert_eq!(recent.after(19_998, 10), None);
    }
}
