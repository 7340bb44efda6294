//! How many requests are handled at once, and what a request that waits has to do with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// The places of the requests that are handled at once.
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    longest_wait: Duration,
}

/// The place of one request.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    pub(crate) longest_wait: Duration,
}

impl Slots {
    /// So many places, for requests that may wait for so long.
    pub(crate) fn new(n_slots: usize, longest_wait: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(n_slots.min(Semaphore::MAX_PERMITS))), longest_wait }
    }

    /// Gives the request a place until it leaves it, or until the request and what is returned are
    /// dropped; or refuses it at once.
    pub(crate) fn admit(&self, request: &mut Request) -> Result<Slot, Problem> {
        let permit = Arc::clone(&self.free)
            .try_acquire_owned()
            .map_err(|_| Problem::overloaded("Too many requests in progress"))?;
        let slot =
            Slot { permit: Arc::new(Mutex::new(Some(permit))), longest_wait: self.longest_wait };
        request.extensions_mut().insert(slot.clone());
        Ok(slot)
    }
}

impl Slot {
    /// Leaves the place to another request: this one only waits from now on.
    pub(crate) fn leave(&self) {
        drop(self.permit.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
