//! The limit of requests that are handled at once. A request that only waits gives its permit back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::mutex::lock;
use crate::problem::Problem;

pub(crate) struct ConcurrencyLimit {
    permits: Arc<Semaphore>,
    longest_wait: Duration,
}

/// The permit of one request, as an extension of the request.
#[derive(Clone)]
pub(crate) struct ConcurrencyPermit {
    pub(crate) permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    /// Maximum time that the request may wait for a result that it prefers.
    pub(crate) longest_wait: Duration,
}

impl ConcurrencyLimit {
    pub(crate) fn new(n_permits: usize, longest_wait: Duration) -> Self {
        // `Semaphore::new` panics above its maximum.
        let n_permits = n_permits.min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(n_permits)), longest_wait }
    }

    /// Takes a permit for the request, or refuses the request at once if none is left. The permit is
    /// held until it is released, or until both the request and the returned value are dropped.
    pub(crate) fn acquire_for(&self, request: &mut Request) -> Result<ConcurrencyPermit, Problem> {
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| Problem::overloaded("Too many requests in progress"))?;
        let permit = Arc::new(Mutex::new(Some(permit)));
        let permit = ConcurrencyPermit { permit, longest_wait: self.longest_wait };
        request.extensions_mut().insert(permit.clone());
        Ok(permit)
    }
}

impl ConcurrencyPermit {
    /// Gives the permit to another request: this one only waits from now on.
    pub(crate) fn release(&self) {
        drop(lock(&self.permit).take());
    }
}
