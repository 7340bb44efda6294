//! Roles side by side: they start together, and the first to end, or a signal, ends them all.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Any error that ends a role.
pub type RoleError = Box<dyn std::error::Error + Send + Sync>;

/// Why the roles ended, other than being asked to.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error("{role} stopped")]
    Role {
        role: &'static str,
        #[source]
        source: RoleError,
    },
    #[error("{role} ended without being asked to")]
    EndedEarly { role: &'static str },
    #[error("a role panicked")]
    Panicked(#[source] tokio::task::JoinError),
    #[error("{} did not end within {} ms and was cut off", roles.join(", "), drain_timeout.as_millis())]
    DrainTimeout { roles: Vec<&'static str>, drain_timeout: Duration },
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
}

/// Roles running side by side.
pub struct Roles {
    tasks: JoinSet<(&'static str, Result<(), RoleError>)>,
    running: Vec<&'static str>,
    stop: CancellationToken,
}

impl Roles {
    /// No roles yet. Each is given `stop` by its caller, and ends when it is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), running: Vec::new(), stop }
    }

    /// Starts a role.
    pub fn spawn<E>(
        &mut self,
        role: &'static str,
        run: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: Into<RoleError> + 'static,
    {
        self.running.push(role);
        self.tasks.spawn(async move { (role, run.await.map_err(Into::into)) });
    }

    /// Waits until all have ended. SIGTERM or SIGINT asks them to; after `drain_timeout`, or at a
    /// second signal, what is left is cut off.
    pub async fn finish(mut self, drain_timeout: Duration) -> Result<(), LifecycleError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(LifecycleError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(LifecycleError::Signals)?;
        let stop = self.stop.clone();
        let mut first_error = None;
        let mut deadline = None;
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => {
                    let Some(ended) = ended else { break };
                    let error = self.error_of(ended);
                    first_error = first_error.or(error);
                    self.stop.cancel();
                }
                () = stop.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + drain_timeout);
                }
                () = next_signal(&mut terminate, &mut interrupt) => {
                    if stop.is_cancelled() {
                        return Err(self.cut_off(drain_timeout));
                    }
                    tracing::info!("Stopping: finishing what is in progress");
                    stop.cancel();
                }
                () = wait_until(deadline) => return Err(self.cut_off(drain_timeout)),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn error_of(
        &mut self,
        ended: Result<(&'static str, Result<(), RoleError>), tokio::task::JoinError>,
    ) -> Option<LifecycleError> {
        match ended {
            Ok((role, outcome)) => {
                self.running.retain(|it| *it != role);
                match outcome {
                    Err(source) => Some(LifecycleError::Role { role, source }),
                    Ok(()) if self.stop.is_cancelled() => None,
                    Ok(()) => Some(LifecycleError::EndedEarly { role }),
                }
            }
            Err(panic) => Some(LifecycleError::Panicked(panic)),
        }
    }

    fn cut_off(&mut self, drain_timeout: Duration) -> LifecycleError {
        self.tasks.abort_all();
        LifecycleError::DrainTimeout { roles: std::mem::take(&mut self.running), drain_timeout }
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
