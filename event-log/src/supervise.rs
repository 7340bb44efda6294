//! Tasks that somebody cannot do without.

use std::panic::resume_unwind;

use tokio::task::JoinSet;

/// Ends the caller as its task ended: with the task's panic. A reader whose task is gone would wait for
/// ever otherwise, or take what it has for all there is; so the panic ends what reads, and in the end
/// the process, which is started again.
///
/// To be called once the task's end of a channel is closed.
pub(crate) async fn share_fate<T>(tasks: &mut JoinSet<()>) -> T {
    let ended = tasks.join_next().await;
    let panic = ended.and_then(Result::err).and_then(|error| error.try_into_panic().ok());
    resume_unwind(panic.unwrap_or_else(|| Box::new("a task that should run on has ended")))
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn reader_panics_as_its_task_did() {
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
                None => share_fate(&mut tasks).await,
            }
        });
        let ended = reader.join_next().await.unwrap();
        let panic = ended.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"injected"));
    }
}
