//! Checks of the caller's rights, as EventStoreDB makes them: when a call begins, and for each append
//! of a `BatchAppend` call. A call that has begun keeps its rights.

use tonic::{Extensions, Status};

use crate::{
    access::{Caller, StreamAction},
    log::{LogError, ResolvedEvent},
    rpc::{Context, status::access_denied},
};

impl Context {
    /// Returns the caller of a request with these extensions.
    pub(crate) fn caller_of(&self, extensions: &Extensions) -> Caller {
        match extensions.get::<Caller>() {
            Some(caller) => caller.clone(),
            // Authentication stores a caller in every request. A request without one must not have
            // all rights.
            None if self.has_users => Caller::Anonymous,
            None => Caller::Unrestricted,
        }
    }

    /// Fails with `PERMISSION_DENIED` if the caller may not do `action` on `stream`.
    pub(crate) async fn authorize(
        &self,
        caller: &Caller,
        stream: &str,
        action: StreamAction,
    ) -> Result<(), Status> {
        let is_allowed = self.acls.is_allowed(caller, stream, action).await?;
        is_allowed.then_some(()).ok_or_else(access_denied)
    }

    /// Removes the targets of links to streams that the caller may not read. The links remain, as if
    /// their targets were deleted. EventStoreDB does not check this (`link-targets` in
    /// docs/event-store-compatibility.md).
    pub(crate) async fn remove_unreadable_targets(
        &self,
        caller: &Caller,
        events: &mut [ResolvedEvent],
    ) -> Result<(), LogError> {
        if caller.is_admin() {
            return Ok(());
        }
        for resolved in events.iter_mut().filter(|resolved| resolved.link.is_some()) {
            let Some(target) = &resolved.event else { continue };
            if !self.acls.is_allowed(caller, &target.stream, StreamAction::Read).await? {
                resolved.event = None;
            }
        }
        Ok(())
    }
}

/// Fails with `PERMISSION_DENIED` unless the caller is an operator or an administrator.
pub(crate) fn authorize_operator(caller: &Caller) -> Result<(), Status> {
    caller.is_operator().then_some(()).ok_or_else(access_denied)
}

/// Fails with `PERMISSION_DENIED` if the call has no credentials.
pub(crate) fn authorize_user(caller: &Caller) -> Result<(), Status> {
    caller.is_authenticated().then_some(()).ok_or_else(access_denied)
}
