//! The lifecycle of a process: runs its roles concurrently, and shuts all down gracefully when one of
//! them ends or a signal arrives.

use std::collections::HashMap;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// An error that ends a role.
pub type RoleError = Box<dyn std::error::Error + Send + Sync>;

/// Why the roles ended other than by a requested stop.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error("{role} stopped")]
    Role {
        role: &'static str,
        #[source]
        source: RoleError,
    },
    #[error("{role} ended unexpectedly")]
    EndedEarly { role: &'static str },
    #[error("{role} panicked")]
    Panicked {
        role: &'static str,
        #[source]
        source: tokio::task::JoinError,
    },
    #[error("{} did not stop within {} ms and was aborted", roles.join(", "), drain_timeout.as_millis())]
    DrainTimeout { roles: Vec<&'static str>, drain_timeout: Duration },
    #[error("cannot register signal handlers")]
    Signals(#[source] std::io::Error),
}

/// Roles that run concurrently.
pub struct Roles {
    tasks: JoinSet<Result<(), RoleError>>,
    running: HashMap<Id, &'static str>,
    stop: CancellationToken,
    /// Cancelled by the first signal; `stop` follows after `drain_delay`.
    draining: CancellationToken,
    drain_delay: Duration,
}

impl Roles {
    /// Creates an empty set of roles. The caller passes `stop` to each role, which ends when it is
    /// cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            tasks: JoinSet::new(),
            running: HashMap::new(),
            draining: stop.child_token(),
            drain_delay: Duration::ZERO,
            stop,
        }
    }

    /// Delays the stop after a signal, so that load balancers see that the process is not ready before
    /// it stops. Returns a token that is cancelled by the signal.
    pub fn delay_stop(&mut self, drain_delay: Duration) -> CancellationToken {
        self.drain_delay = drain_delay;
        self.draining.clone()
    }

    /// Returns a token that is cancelled when the process is about to stop, before its roles end.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Starts a role.
    pub fn spawn<E>(
        &mut self,
        role: &'static str,
        run: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: Into<RoleError> + 'static,
    {
        let task = self.tasks.spawn(async move { run.await.map_err(Into::into) });
        self.running.insert(task.id(), role);
    }

    /// Runs the roles until all have ended. SIGTERM or SIGINT stops them, after the time of
    /// [`delay_stop`](Self::delay_stop) or at once with a second signal. After `drain_timeout`, or at
    /// the next signal, the remaining roles are aborted.
    pub async fn run_to_end(mut self, drain_timeout: Duration) -> Result<(), LifecycleError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(LifecycleError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(LifecycleError::Signals)?;
        let stop = self.stop.clone();
        let mut first_error = None;
        let mut delayed_until = None;
        let mut deadline = None;
        loop {
            tokio::select! {
                ended = self.tasks.join_next_with_id() => {
                    let Some(ended) = ended else { break };
                    let error = self.remove_ended(ended);
                    // Later errors are mostly consequences of the stop.
                    first_error = first_error.or(error);
                    self.stop.cancel();
                }
                // The conditions of this and the delay below keep branches that stay ready from
                // being taken in every round.
                () = stop.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + drain_timeout);
                }
                () = next_signal(&mut terminate, &mut interrupt) => {
                    // A signal during the drain: whoever sends it does not want to wait.
                    if stop.is_cancelled() {
                        return Err(self.abort_remaining(drain_timeout));
                    }
                    if self.draining.is_cancelled() || self.drain_delay.is_zero() {
                        tracing::info!("Stopping: draining work in progress");
                        stop.cancel();
                        continue;
                    }
                    let delay_ms = self.drain_delay.as_millis();
                    tracing::info!(delay_ms, "Stop delayed: not ready, still serving");
                    self.draining.cancel();
                    delayed_until = Some(Instant::now() + self.drain_delay);
                }
                () = wait_until(delayed_until), if !stop.is_cancelled() => {
                    tracing::info!("Stopping: draining work in progress");
                    stop.cancel();
                }
                () = wait_until(deadline) => return Err(self.abort_remaining(drain_timeout)),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Removes a role that has ended. Returns the error if it should not have ended.
    fn remove_ended(
        &mut self,
        ended: Result<(Id, Result<(), RoleError>), tokio::task::JoinError>,
    ) -> Option<LifecycleError> {
        let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
        // `spawn` adds a name for every task.
        let role = self.running.remove(&id).unwrap_or("role");
        match ended {
            Ok((_, Err(source))) => Some(LifecycleError::Role { role, source }),
            Ok((_, Ok(()))) if self.stop.is_cancelled() => None,
            Ok((_, Ok(()))) => Some(LifecycleError::EndedEarly { role }),
            Err(source) => Some(LifecycleError::Panicked { role, source }),
        }
    }

    fn abort_remaining(&mut self, drain_timeout: Duration) -> LifecycleError {
        self.tasks.abort_all();
        let mut roles: Vec<_> = std::mem::take(&mut self.running).into_values().collect();
        roles.sort_unstable();
        LifecycleError::DrainTimeout { roles, drain_timeout }
    }
}

async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    async fn run_until_stopped(stop: CancellationToken) -> Result<(), RoleError> {
        stop.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn panic_of_a_role_stops_the_others() {
        let stop = CancellationToken::new();
        let mut roles = Roles::new(stop.clone());
        roles.spawn("idle", run_until_stopped(stop.clone()));
        roles.spawn("broken", async {
            std::future::ready(Err::<(), _>("injected")).await.unwrap();
            Ok::<_, RoleError>(())
        });
        let error = roles.run_to_end(LONG).await.unwrap_err();
        assert_eq!(error.to_string(), "broken panicked");
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn early_end_of_a_role_stops_the_others() {
        let stop = CancellationToken::new();
        let mut roles = Roles::new(stop.clone());
        roles.spawn("idle", run_until_stopped(stop.clone()));
        roles.spawn("early", std::future::ready(Ok::<_, RoleError>(())));
        let error = roles.run_to_end(LONG).await.unwrap_err();
        assert_eq!(error.to_string(), "early ended unexpectedly");
    }
}
