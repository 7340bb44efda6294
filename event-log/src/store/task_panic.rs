//! Panics of background tasks, passed on to the readers that depend on them.

use std::panic::resume_unwind;

use tokio::task::JoinSet;

/// Panics with the panic of the task. Call it once the task's end of a channel is closed: without it
/// the reader would wait for ever, or take what it has for all there is. The panic ends the reader
/// and finally the process, which is then restarted.
pub(crate) async fn propagate_panic<T>(tasks: &mut JoinSet<()>) -> T {
    let ended = tasks.join_next().await;
    let panic = ended.and_then(Result::err).and_then(|error| error.try_into_panic().ok());
    resume_unwind(panic.unwrap_or_else(|| Box::new("a background task has ended unexpectedly")))
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn reader_panics_when_its_task_has_panicked() {
        let (sender, mut receiver) = mpsc::channel::<()>(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _held = sender;
            panic!("injected");
        });
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            match receiver.recv().await {
                Some(()) => (),
                None => propagate_panic(&mut tasks).await,
            }
        });
        let ended = reader.join_next().await.unwrap();
        let panic = ended.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"injected"));
    }
}
