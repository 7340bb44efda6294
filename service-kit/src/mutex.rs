//! Locks whose holders leave the guarded value valid at every step.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks the mutex. Poison is ignored: it says that a holder panicked, and the value is valid anyway.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
